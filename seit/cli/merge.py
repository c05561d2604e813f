"""`seit merge DST STORE STORE…`."""

from typing import Literal

from seit.cli.output import counting_bar, print_result, print_table, warn_of_codec
from seit.numbers import counted, human_bytes


def command(
    dst: str,
    stores: list[str],
    /,
    *,
    prefix: bool = False,
    on_duplicate: Literal["error", "skip"] = "error",
    codec: Literal["context", "packed"] | None = None,
    container: Literal["wds", "zarr"] | None = None,
    json: bool = False,
) -> None:
    """Merge stores of one tokenizer into one; splits and classes are matched by name.

    Args:
        dst: A new or empty folder or URL.
        stores: Folders or URLs of stores.
        prefix: Put the name of each store's folder before its keys.
        on_duplicate: A key that occurs twice in a split: stop with an error, or keep the first.
        codec: Codec of the grids; by default that of all stores, or context if they differ.
        container: Format of the shards: WebDataset tars or Zarr v3 groups; by default that of all
            stores, or wds if they differ.
        json: Print one JSON object.
    """
    from seit.api import merge

    with counting_bar("merging", "samples") as progress:
        result = merge(
            stores,
            out=dst,
            prefix=prefix,
            on_duplicate=on_duplicate,
            codec=codec,
            container=container,
            progress=progress,
        )
    warn_of_codec(codec, result.codec)
    if json:
        return print_result(result)
    splits = ", ".join(f"{name} {count:,}" for name, count in result.splits.items())
    left_out = f"; {result.left_out:,} of equal keys left out" if result.left_out else ""
    return print_table(
        [
            ("store", dst),
            ("samples", f"{result.samples:,} ({splits}){left_out}"),
            ("classes", f"{result.classes:,}"),
            ("size", f"{human_bytes(result.bytes)}, {result.bytes_per_sample:.0f} B per sample"),
            ("shards", f"{result.container}, {result.codec}"),
            ("skipped", counted(result.skipped, "unreadable input")),
        ]
    )
