"""`seit convert SRC DST`."""

from typing import Literal

from seit.cli.output import counting_bar, print_result, print_table, warn_of_codec
from seit.numbers import human_bytes


def command(
    src: str,
    dst: str,
    /,
    *,
    codec: Literal["context", "packed"] | None = None,
    container: Literal["wds", "zarr", "official"] | None = None,
    license: str = "",  # noqa: A002 - the name of the flag
    private: bool = False,
    json: bool = False,
) -> None:
    """Copy a store, in another codec or container, or from and to official SeiT files.

    Args:
        src: A store's folder or URL, or a folder of naver-ai/seit's token files.
        dst: A new or empty folder or URL; hf://OWNER/NAME uploads to a dataset of the Hugging Face
            hub, with a dataset card, and resumes.
        codec: Codec of the grids; that of SRC by default.
        container: Format of the shards: WebDataset tars, Zarr v3 groups, or naver-ai/seit's files;
            that of SRC by default.
        license: License on the dataset card of hf://, such as cc0-1.0.
        private: Make a new dataset of hf:// private.
        json: Print one JSON object.
    """
    from seit.api import convert

    with counting_bar("converting") as progress:
        result = convert(
            src,
            out=dst,
            codec=codec,
            container=container,
            license_id=license,
            private=private,
            progress=progress,
        )
    warn_of_codec(codec, result.codec)
    if json:
        return print_result(result)
    return print_table(
        [
            ("store", dst),
            ("samples", f"{result.samples:,}"),
            ("size", f"{human_bytes(result.bytes)}, {result.bytes_per_sample:.0f} B per sample"),
            ("shards", ", ".join(filter(None, (result.container, result.codec)))),
        ]
    )
