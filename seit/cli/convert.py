"""`seit convert SRC DST`."""

from dataclasses import asdict
from typing import Literal

from seit.cli.output import human_bytes, print_json, print_table, progress_bar


def command(
    src: str,
    dst: str,
    /,
    *,
    codec: Literal["context", "packed"] | None = None,
    container: Literal["wds", "zarr", "official"] | None = None,
    json: bool = False,
) -> None:
    """Write a store once more: copied, in another codec or container, or as official SeiT files.

    Args:
        src: A store's folder or URL, or a folder of naver-ai/seit's token files.
        dst: A new or empty folder or URL.
        codec: How grids are coded; as in SRC by default.
        container: What shards are: WebDataset tars, Zarr v3 groups, or naver-ai/seit's files; as in
            SRC by default.
        json: Print one JSON object.
    """
    from seit.stores import convert_store

    with progress_bar("converting", "") as bar:
        result = convert_store(
            src,
            dst,
            codec=codec,
            container=container,
            progress=lambda done, total: bar(done, total, ""),
        )
    if json:
        return print_json(asdict(result))
    return print_table(
        [
            ("store", dst),
            ("samples", f"{result.samples:,}"),
            ("size", f"{human_bytes(result.bytes)}, {result.bytes_per_sample:.0f} B per sample"),
            ("shards", ", ".join(filter(None, (result.container, result.codec)))),
        ]
    )
