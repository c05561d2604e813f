"""Verbs on stores: info, verify, convert, merge, filter, delete, duplicates."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from seit.analysis import Duplicates, find_duplicates
from seit.errors import UsageError
from seit.progress import Count
from seit.shards import Location, Store, as_store
from seit.stores import (
    Conversion,
    Deletion,
    Rewritten,
    StoreInfo,
    Verification,
    convert_store,
    delete_samples,
    describe_store,
    filter_store,
    merge_stores,
    read_keys,
    verify_store,
)
from seit.stream import select

CodecName = Literal["context", "packed"]
ContainerName = Literal["wds", "zarr"]


def info(
    store: Store | Location, *, counts: bool = False, progress: Count | None = None
) -> StoreInfo:
    """Describe a store: samples, bytes, grid, tokenizer, classes, splits.

    Args:
        store: a path or URL, or an open store.
        counts: also count the samples of each class, which reads all labels, block by block, the
            first time; later calls of this user recall counts that took long.
        progress: called with (samples counted, total).

    Raises:
        UsageError: there is no store.
        DamagedError: its card, or a block of labels, is damaged.

    Example:
        >>> seit.info("store").bytes_per_sample
        >>> seit.info("store", counts=True).class_counts["train"]
    """
    return describe_store(store, counts=counts, progress=progress)


def verify(
    store: Location, *, repair_from: Location | None = None, progress: Count | None = None
) -> Verification:
    """Check that every byte of a store is intact, or restore it from a copy.

    Damage raises no error here: the result's ``ok`` and ``damaged`` report it.

    Args:
        store: a path or URL.
        repair_from: a copy of the store; damaged or missing files are restored from it.
        progress: called with (files done, files in total).

    Raises:
        UsageError: there is no store, or ``repair_from`` is not a copy of it.

    Example:
        >>> assert seit.verify("store").ok
    """
    return verify_store(store, repair_from=repair_from, progress=progress)


def convert(
    source: Location,
    *,
    out: Location,
    codec: CodecName | None = None,
    container: Literal["wds", "zarr", "official"] | None = None,
    license_id: str = "",
    private: bool = False,
    progress: Count | None = None,
) -> Conversion:
    """Copy a store, in another codec or container, or from and to official SeiT files.

    Args:
        source: a path or URL of a store, or a folder of naver-ai/seit's token files.
        out: a new or empty folder or URL; ``hf://OWNER/NAME`` is a dataset of the Hugging Face hub,
            which gets a dataset card too. An interrupted upload resumes.
        codec: how grids are coded; as in the source by default.
        container: WebDataset tars, Zarr v3 groups, or naver-ai/seit's files; as in the source by
            default.
        license_id: license on the dataset card of ``hf://``, such as ``cc0-1.0``.
        private: whether a new dataset of ``hf://`` is private.
        progress: called with (done, total).

    Raises:
        UsageError: there is nothing to convert, or ``out`` is not empty.

    Example:
        >>> seit.convert("store", out="store-zarr", container="zarr")
    """
    return convert_store(
        source,
        out,
        codec=codec,
        container=container,
        license_id=license_id,
        private=private,
        progress=progress,
    )


def merge(
    stores: Sequence[Location],
    *,
    out: Location,
    prefix: bool = False,
    on_duplicate: Literal["error", "skip"] = "error",
    codec: CodecName | None = None,
    container: ContainerName | None = None,
    progress: Count | None = None,
) -> Rewritten:
    """Merge stores of one tokenizer into one; splits and classes are united by name.

    Args:
        stores: paths or URLs, two or more.
        out: a new or empty folder or URL.
        prefix: put the name of each store's folder before its keys.
        on_duplicate: whether a key that occurs twice in a split is an error, or the first is kept.
        codec: how grids are coded; by default as in all stores, or `context`.
        container: WebDataset tars or Zarr v3 groups; by default as in all stores, or `wds`.
        progress: called with (samples done, total).

    Raises:
        UsageError: the stores are of different tokenizers, or a key occurs twice.

    Example:
        >>> seit.merge(["store-a", "store-b"], out="both", prefix=True)
    """
    return merge_stores(
        out,
        stores,
        prefix=prefix,
        on_duplicate=on_duplicate,
        codec=codec,
        container=container,
        progress=progress,
    )


def filter(  # noqa: A001 - the name of the command
    source: Store | Location,
    *,
    out: Location,
    split: Sequence[str] | str | None = None,
    classes: Sequence[str] | None = None,
    keys: Iterable[str] | Path | None = None,
    key_pattern: Sequence[str] | str = (),
    where: Mapping[str, str] | None = None,
    fraction: float | None = None,
    seed: int = 0,
    keep_classes: bool = False,
    missing: Literal["error", "ok"] = "error",
    codec: CodecName | None = None,
    container: ContainerName | None = None,
    progress: Count | None = None,
) -> Rewritten:
    """Write a new store with the samples that meet all conditions.

    Args:
        source: a path or URL, or an open store.
        out: a new or empty folder or URL.
        split: only these splits.
        classes: only these classes, by name.
        keys: only these keys, or those in a file, one a line; ``KEY`` stands for its views
            ``KEY#0``, ``KEY#1`` … too.
        key_pattern: only keys that match one of these shell patterns; ``*`` takes ``/`` too.
        where: only samples with these metadata.
        fraction: only this share of each class's files, with all their windows or views; above 0,
            at most 1.
        seed: decides which samples the fraction takes.
        keep_classes: keep names of classes without samples, and the numbers of all labels.
        missing: whether keys of no sample are an error.
        codec: how grids are coded; as in the source by default.
        container: WebDataset tars or Zarr v3 groups; as in the source by default.
        progress: called with (samples done, total).

    Raises:
        UsageError: no sample is left, a name or key is unknown, or ``out`` is not empty.

    Example:
        >>> seit.filter("store", out="tenth", fraction=0.1)
    """
    patterns = [key_pattern] if isinstance(key_pattern, str) else list(key_pattern)
    splits = [split] if isinstance(split, str) else split
    if fraction is not None and (keys is not None or patterns or where):
        raise UsageError(
            "--fraction is of whole classes and goes with --split and --classes only; filter by "
            "the other conditions first, then take a fraction of that store"
        )
    store = as_store(source)
    note: dict[str, Any] = {}
    rows: dict[str, npt.NDArray[np.int64]] | None = None
    if fraction is not None or classes is not None:
        note = {
            "classes": None if classes is None else list(classes),
            "fraction": fraction,
            "seed": seed,
        }
        share = 1.0 if fraction is None else fraction
        names = None if classes is None else _class_names(classes, store.classes)
        rows = {
            name: select(store[name], classes=names, fraction=share, seed=seed)
            for name in splits or store
        }
    return filter_store(
        store,
        out,
        splits=splits,
        rows=rows,
        keys=None if keys is None else _listed(keys),
        patterns=patterns,
        where=where or {},
        missing=missing,
        keep_classes=keep_classes,
        codec=codec,
        container=container,
        note=note,
        progress=progress,
    )


def delete(
    store: Location,
    *,
    keys: Iterable[str] | Path,
    missing: Literal["error", "ok"] = "error",
    refit: bool = False,
    progress: Count | None = None,
) -> Deletion:
    """Delete samples for good, in place: keys, labels, metadata and tokens.

    Interrupted at any moment, the store is the old or the new one; the same call resumes.

    Args:
        store: a local folder.
        keys: keys of samples, or a file of keys, one a line; ``KEY`` stands for its views
            ``KEY#0``, ``KEY#1`` … too.
        missing: whether keys of no sample are an error.
        refit: fit the entropy coding tables to the remaining samples and recode them.
        progress: called with (samples done, total).

    Raises:
        UsageError: a key is unknown, or the store is remote; nothing was changed.

    Example:
        >>> seit.delete("store", keys=["cat/1.png"])
    """
    return delete_samples(store, _listed(keys), missing=missing, refit=refit, progress=progress)


def duplicates(
    store: Store | Location,
    *,
    between: tuple[str, str] | None = None,
    threshold: float = 0.8,
    most: int = 1000,
    progress: Count | None = None,
) -> Duplicates:
    """Find samples of two splits that are the same or nearly so, by their tokens.

    Args:
        store: a path or URL, or an open store.
        between: two splits, or one twice to look within it; every two splits by default.
        threshold: score of a near-duplicate, at most 1: 0.95 for files that were encoded again,
            0.8 for slight crops and mirror images too.
        most: pairs to list; the others are only counted.
        progress: called with (done, total).

    Raises:
        UsageError: there is no such split, or the threshold is outside its range.

    Example:
        >>> seit.duplicates("store", between=("train", "val")).near
    """
    return find_duplicates(
        as_store(store),
        between=between,
        threshold=threshold,
        most_pairs=most,
        progress=progress,
    )


def _listed(keys: Iterable[str] | Path) -> Iterable[str]:
    """Return keys that are given one by one, or in a file."""
    if isinstance(keys, str):
        raise UsageError(
            f"keys is the string {keys!r}; pass a list of keys, or a Path to a file of keys"
        )
    return read_keys(keys) if isinstance(keys, Path) else keys


def _class_names(given: Sequence[str], known: Sequence[str]) -> list[str]:
    """Split texts that join several names by commas, which may be part of a name."""
    names: list[str] = []
    are_known = frozenset(known)
    for text in given:
        names += [text] if text in are_known else text.split(",")
    return names
