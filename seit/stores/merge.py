"""Merging of stores with the same tokenizer.

Legend: N samples of a split over all stores.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from seit.classes import Spellings, say_near, unite_classes
from seit.errors import UsageError
from seit.progress import Count
from seit.shards import (
    Block,
    ContextCodec,
    Kind,
    LocalFolder,
    Location,
    Split,
    Store,
    check_same_tokenizer,
    check_split_names,
    open_store,
)
from seit.stores.place import work_folder
from seit.stores.recode import CONTAINERS, check_names
from seit.stores.rewrite import (
    Contents,
    Rewritten,
    common_shard_samples,
    describe,
    edited_job,
    relabelled,
    share_of,
    skipped_lines,
    write_contents,
)
from seit.stores.select import chosen_blocks

_LOG = logging.getLogger(__name__)
_Masks = Mapping[tuple[int, str], npt.NDArray[np.bool_]]
"""Masks of the samples to keep, by index of the store and split."""


def merge_stores(
    target: Location,
    sources: Sequence[Location],
    *,
    prefix: bool = False,
    on_duplicate: Literal["error", "skip"] = "error",
    codec: str | None = None,
    container: str | None = None,
    progress: Count | None = None,
) -> Rewritten:
    """Write the samples of several stores with the same tokenizer as one: whole or not at all.

    Splits and classes of the same name are united; labels are renumbered. Samples follow the order
    of ``sources``, classes that of their first occurrence. Duplicate keys are looked for within
    each split, which takes about 32 bytes of memory per sample.

    Args:
        target: path or URL, new or empty.
        sources: two or more stores.
        prefix: prepend the name of each store's folder and ``/`` to its keys.
        on_duplicate: ``"skip"`` keeps the first of the samples with the same key.
        codec: ``"packed"`` or ``"context"``; by default the common one, else ``"context"``.
        container: ``"wds"`` or ``"zarr"``; by default the common one, else ``"wds"``.
        progress: callback for progress.

    Raises:
        UsageError: the tokenizers differ, a key occurs twice, two folders share a name, two splits
            differ only in case, or ``target`` is not empty.
        DamagedError: a source is damaged.
        SeitError: a disk is full or a remote server does not respond.
    """
    check_names(codec or ContextCodec.name, container or CONTAINERS[0])
    if on_duplicate not in ("error", "skip"):
        raise UsageError(f"on_duplicate is {on_duplicate!r}; expected 'error' or 'skip'")
    if len(sources) < 2:
        raise UsageError("a merge needs two or more stores; `seit convert` copies a single one")
    stores = [open_store(source) for source in sources]
    check_split_names(_split_names(stores))
    check_same_tokenizer(stores)
    prefixes = _prefixes(stores) if prefix else ("",) * len(stores)
    codec = codec or _common([store.card.codec for store in stores], ContextCodec.name)
    container = container or _common([store.card.container for store in stores], CONTAINERS[0])
    with work_folder(target, resumes=container == CONTAINERS[0]) as work:
        masks = _keep_first(stores, prefixes, skips=on_duplicate == "skip")
        contents = _contents(stores, prefixes, masks)
        write_contents(
            contents,
            work,
            target,
            codec=codec,
            container=container,
            request={"merge": [store.card.seal for store in stores], "prefixes": prefixes},
            progress=progress,
        )
    total = sum(store.card.samples for store in stores)
    return describe(target, left_out=total - contents.samples)


def _prefixes(stores: Sequence[Store]) -> tuple[str, ...]:
    names = [_folder_name(store) for store in stores]
    for name in names:
        if not name or names.count(name) > 1:
            raise UsageError(
                f"{names.count(name)} of the stores are in folders named {name!r}, which "
                "--prefix cannot distinguish; rename one"
            )
    return tuple(f"{name}/" for name in names)


def _folder_name(store: Store) -> str:
    if isinstance(store.folder, LocalFolder):
        return store.folder.path.resolve().name
    return str(store.folder).rstrip("/").rpartition("/")[2]


def _common(names: Sequence[str], otherwise: str) -> str:
    return names[0] if len(set(names)) == 1 else otherwise


def _split_names(stores: Sequence[Store]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(chain.from_iterable(stores)))


def _keep_first(stores: Sequence[Store], prefixes: Sequence[str], *, skips: bool) -> _Masks:
    """Keep all samples but those whose key occurs earlier in the same split.

    Raises:
        UsageError: there are duplicates, and they are not to be skipped.
    """
    masks: dict[tuple[int, str], npt.NDArray[np.bool_]] = {}
    for name in _split_names(stores):
        parts = [(number, store[name]) for number, store in enumerate(stores) if name in store]
        for _, split in parts:
            split.check_files(len(split))
        hashes = [
            np.fromiter((hash(key) for key in _keys(split, prefixes[number])), dtype=np.int64)
            for number, split in parts
        ]
        ordered = np.sort(np.concatenate(hashes))
        suspected = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        first_homes: dict[str, Store] = {}
        for (number, split), found in zip(parts, hashes, strict=True):
            masks[number, name] = mask = np.ones(len(split), dtype=bool)
            doubtful = np.isin(found, suspected)
            if not doubtful.any():
                continue
            for row, key in enumerate(_keys(split, prefixes[number])):
                if not doubtful[row]:
                    continue
                if key not in first_homes:
                    first_homes[key] = split.store
                elif skips:
                    mask[row] = False
                else:
                    raise UsageError(_twice(key, name, first_homes[key], split.store))
    return masks


def _twice(key: str, split: str, first: Store, second: Store) -> str:
    if first is second:
        return (
            f"{first.folder} holds the key {key!r} twice in split {split!r}, which is damage; pass "
            "--on-duplicate skip to keep the first"
        )
    return (
        f"both {first.folder} and {second.folder} hold the key {key!r} in split {split!r}; pass "
        "--on-duplicate skip to keep the first, or --prefix to put the folder's name before keys"
    )


def _keys(split: Split, prefix: str) -> Iterator[str]:
    columns = split.read_blocks(lambda shard, block: shard.open_block(block, Kind.KEYS))
    return (prefix + key for key in chain.from_iterable(columns))


def _contents(stores: Sequence[Store], prefixes: Sequence[str], masks: _Masks) -> Contents:
    classes, numbers = unite_classes(
        [store.classes for store in stores], owners=[store.folder for store in stores]
    )
    _warn_near(stores)

    def pieces(name: str) -> Iterator[Block]:
        for number, store in enumerate(stores):
            if name not in store:
                continue
            chosen = chosen_blocks(store[name], masks[number, name])
            for piece in relabelled(chosen, numbers[number], where=store.folder):
                yield replace(piece, keys=tuple(prefixes[number] + key for key in piece.keys))

    kept = [0] * len(stores)
    for (number, _), mask in masks.items():
        kept[number] += int(mask.sum())
    first = stores[0]
    qualities = [dict(store.card.quality) for store in stores]
    return Contents(
        like=first,
        splits={name: pieces(name) for name in _split_names(stores)},
        samples=sum(kept),
        classes=classes,
        skipped=[
            line
            for store, prefix in zip(stores, prefixes, strict=True)
            for line in _prefixed_skips(store, prefix)
        ],
        source_bytes=sum(
            share_of(store.card.source_bytes, count, store.card.samples)
            for store, count in zip(stores, kept, strict=True)
        ),
        quality=qualities[0] if all(entry == qualities[0] for entry in qualities) else {},
        job=edited_job({}, merge=[_origin(store) for store in stores]),
        shard_samples=common_shard_samples(stores, first.card.block_samples),
        parts=[
            (stores[number][name], masks[number, name])
            for name in _split_names(stores)
            for number in range(len(stores))
            if (number, name) in masks
        ],
    )


def _origin(store: Store) -> dict[str, Any]:
    """Describe a source for the card of the merged store."""
    card = store.card
    return {
        "sha256": card.seal,
        "samples": card.samples,
        "skipped": card.skipped,
        "source_bytes": card.source_bytes,
        "quality": dict(card.quality),
        "job": dict(card.job),
    }


def _warn_near(stores: Sequence[Store]) -> None:
    """Warn if a class of one store is spelled nearly like one of an earlier store."""
    earlier = Spellings()
    for store in stores:
        near = earlier.near(store.classes)
        if near:
            _LOG.warning(
                "%s: %s; they stay different classes, so give them one name if they are the same",
                *(store.folder, say_near(near)),
            )
        earlier.add(store.classes)


def _prefixed_skips(store: Store, prefix: str) -> Iterator[bytes]:
    for entry, line in skipped_lines(store):
        if not prefix:
            yield line
            continue
        renamed = {**entry, "key": f"{prefix}{entry['key']}"}
        yield json.dumps(renamed, ensure_ascii=False).encode() + b"\n"
