"""`seit filter SRC DST`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from seit.cli.integers import Integer
from seit.cli.output import counting_bar, print_result, print_table, warn_of_codec
from seit.errors import UsageError
from seit.numbers import human_bytes


def command(
    src: str,
    dst: str,
    /,
    *,
    split: list[str] | None = None,
    classes: list[str] | None = None,
    keys: Path | None = None,
    key_pattern: list[str] | None = None,
    where: list[str] | None = None,
    fraction: float | None = None,
    seed: Integer = 0,
    keep_classes: bool = False,
    missing: Literal["error", "ok"] = "error",
    codec: Literal["context", "packed"] | None = None,
    container: Literal["wds", "zarr"] | None = None,
    json: bool = False,
) -> None:
    """Write a new store with the samples that meet all conditions.

    Args:
        src: A store's folder or URL.
        dst: A new or empty folder or URL.
        split: Only this split; may be given several times.
        classes: Only these classes, by name, separated by commas; may be given several times.
        keys: Only the keys in this file, one per line; KEY stands for windows KEY#0, … too.
        key_pattern: Only keys that match this shell pattern; several: one of them. * takes / too.
        where: Only samples whose metadata have FIELD=VALUE; several: all of them.
        fraction: Only this share of each class's files, with all their windows or views.
        seed: Seed that decides which samples the fraction takes.
        keep_classes: Keep names of classes without samples, and the numbers of all labels.
        missing: Keys without a sample: stop with an error, or ignore them.
        codec: Codec of the grids; that of SRC by default.
        container: Format of the shards: WebDataset tars or Zarr v3 groups; that of SRC by default.
        json: Print one JSON object.
    """
    from seit.api import filter as filter_samples

    with counting_bar("filtering", "samples") as progress:
        result = filter_samples(
            src,
            out=dst,
            split=split,
            classes=classes,
            keys=keys,
            key_pattern=key_pattern or (),
            where=_fields(where or ()),
            fraction=fraction,
            seed=seed,
            keep_classes=keep_classes,
            missing=missing,
            codec=codec,
            container=container,
            progress=progress,
        )
    warn_of_codec(codec, result.codec)
    if json:
        return print_result(result)
    splits = ", ".join(f"{name} {count:,}" for name, count in result.splits.items())
    return print_table(
        [
            ("store", dst),
            ("samples", f"{result.samples:,} ({splits}); {result.left_out:,} left out"),
            ("classes", f"{result.classes:,}"),
            ("size", f"{human_bytes(result.bytes)}, {result.bytes_per_sample:.0f} B per sample"),
            ("shards", f"{result.container}, {result.codec}"),
        ]
    )


def _fields(conditions: Sequence[str]) -> Mapping[str, str]:
    fields = {}
    for condition in conditions:
        field, equals, value = condition.partition("=")
        if not equals or not field.strip():
            raise UsageError(f"--where is {condition!r}; expected FIELD=VALUE")
        fields[field.strip()] = value.strip()
    return fields
