"""`seit delete STORE KEY…`."""

from pathlib import Path
from typing import Literal

from seit.cli.output import counting_bar, print_result, print_table
from seit.numbers import counted, human_bytes


def command(
    store: str,
    key: list[str] | None = None,
    /,
    *,
    keys: Path | None = None,
    missing: Literal["error", "ok"] = "error",
    refit: bool = False,
    json: bool = False,
) -> None:
    """Remove samples from a store for good, in place: their keys, labels, metadata and tokens.

    After an interruption the store is either the old or the new one; the same command resumes.

    Args:
        store: A store's folder.
        key: Keys of samples; KEY stands for a clip's windows KEY#0, KEY#1 … too.
        keys: A file of keys, one per line.
        missing: Keys without a sample: stop with an error, or ignore them.
        refit: Fit the entropy coding tables to the remaining samples and recode them.
        json: Print one JSON object.
    """
    from seit.api import delete
    from seit.stores import read_keys

    wanted = [*(key or ()), *(read_keys(keys) if keys else ())]
    with counting_bar("deleting", "samples") as progress:
        result = delete(store, keys=wanted, missing=missing, refit=refit, progress=progress)
    if json:
        return print_result(result)
    missed = f"; {counted(result.missing, 'key')} of no sample" if result.missing else ""
    skipped = counted(result.skipped, "skipped input")
    return print_table(
        [
            ("store", store),
            (
                "deleted",
                f"{counted(result.samples, 'sample')}, {skipped}{missed}",
            ),
            ("left", f"{counted(result.remaining, 'sample')}, {human_bytes(result.bytes)}"),
            ("rewritten", counted(result.rewritten, "shard")),
        ]
    )
