"""`seit filter SRC DST`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from seit.cli.output import human_bytes, print_json, print_table, progress_bar
from seit.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from seit.shards import Store


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
    seed: int = 0,
    keep_classes: bool = False,
    missing: Literal["error", "ok"] = "error",
    codec: Literal["context", "packed"] | None = None,
    container: Literal["wds", "zarr"] | None = None,
    json: bool = False,
) -> None:
    """Write a new store with the samples of another that meet all conditions.

    Args:
        src: A store's folder or URL.
        dst: A new or empty folder or URL.
        split: Only this split; may be given several times.
        classes: Only these classes, by name, separated by commas; may be given several times.
        keys: Only the keys in this file, one a line; KEY stands for its views KEY#0, KEY#1 … too.
        key_pattern: Only keys that match this shell pattern; several: one of them. * takes / too.
        where: Only samples whose metadata have FIELD=VALUE; several: all of them.
        fraction: Only this share of each class's samples, above 0, at most 1.
        seed: Decides which samples are the fraction.
        keep_classes: Keep the names of classes of which no sample is left, and all labels' numbers.
        missing: What to do about keys of no sample: stop, or leave them out.
        codec: How grids are coded; as in SRC by default.
        container: What shards are: WebDataset tars or Zarr v3 groups; as in SRC by default.
        json: Print one JSON object.
    """
    from seit.shards import open_store
    from seit.stores import filter_store, read_keys

    note: dict[str, Any] = {}
    rows = None
    if fraction is not None and (keys or key_pattern or where):
        raise UsageError(
            "--fraction is of whole classes and goes with --split and --classes only; filter by "
            "the other conditions first, then take a fraction of that store"
        )
    store = open_store(src)  # once: rows of one state are not those of the next
    if fraction is not None or classes is not None:
        note = {"classes": classes, "fraction": fraction, "seed": seed}
        rows = _select(store, split, classes, 1.0 if fraction is None else fraction, seed)
    with progress_bar("filtering", "samples") as bar:
        result = filter_store(
            store,
            dst,
            splits=split,
            rows=rows,
            keys=None if keys is None else read_keys(keys),
            patterns=key_pattern or (),
            where=_fields(where or ()),
            missing=missing,
            keep_classes=keep_classes,
            codec=codec,
            container=container,
            note=note,
            progress=lambda done, total: bar(done, total, ""),
        )
    if json:
        return print_json(asdict(result))
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


def _select(
    store: "Store",
    splits: Sequence[str] | None,
    given: Sequence[str] | None,
    fraction: float,
    seed: int,
) -> "dict[str, npt.NDArray[np.int64]]":
    from seit.stream import select

    classes = None if given is None else _class_names(given, store.classes)
    return {
        name: select(store[name], classes=classes, fraction=fraction, seed=seed)
        for name in splits or store
    }


def _class_names(given: Sequence[str], known: Sequence[str]) -> list[str]:
    """Names that are given one by one or separated by commas, which may be part of a name."""
    names: list[str] = []
    are_known = frozenset(known)
    for text in given:
        names += [text] if text in are_known else text.split(",")
    return names


def _fields(conditions: Sequence[str]) -> Mapping[str, str]:
    fields = {}
    for condition in conditions:
        field, equals, value = condition.partition("=")
        if not equals or not field.strip():
            raise UsageError(f"--where is {condition!r}; it takes FIELD=VALUE")
        fields[field.strip()] = value.strip()
    return fields
