"""`seit delete STORE KEY…`."""

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from seit.cli.output import human_bytes, print_json, print_table, progress_bar


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

    Stopped at any moment, the store is the old or the new one; the same command goes on.

    Args:
        store: A store's folder.
        key: Keys of samples; KEY stands for its views KEY#0, KEY#1 … too.
        keys: A file of keys, one a line.
        missing: What to do about keys of no sample: stop, or leave them out.
        refit: Fit the tables of entropy coding to what is left, and code all samples anew.
        json: Print one JSON object.
    """
    from seit.stores import delete_samples, read_keys

    wanted = [*(key or ()), *(read_keys(keys) if keys else ())]
    with progress_bar("deleting", "samples") as bar:
        result = delete_samples(
            store,
            wanted,
            missing=missing,
            refit=refit,
            progress=lambda done, total: bar(done, total, ""),
        )
    if json:
        return print_json(asdict(result))
    missed = f"; {result.missing:,} keys of no sample" if result.missing else ""
    return print_table(
        [
            ("store", store),
            ("deleted", f"{result.samples:,} samples, {result.skipped:,} skipped inputs{missed}"),
            ("left", f"{result.remaining:,} samples, {human_bytes(result.bytes)}"),
            ("rewritten", f"{result.rewritten:,} shards"),
        ]
    )
