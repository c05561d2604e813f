"""Creation of a new store from some samples of another."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from seit.errors import UsageError
from seit.progress import Count
from seit.shards import Block, Location, Split, Store, as_store, check_split_names
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
from seit.stores.select import KeySet, chosen_blocks, match_samples

_Masks = Mapping[str, npt.NDArray[np.bool_]]


def filter_store(
    source: Location | Store,
    target: Location,
    *,
    splits: Sequence[str] | None = None,
    rows: Mapping[str, npt.NDArray[np.integer]] | None = None,
    keys: Iterable[str] | None = None,
    patterns: Sequence[str] = (),
    where: Mapping[str, str] | None = None,
    missing: Literal["error", "ok"] = "error",
    keep_classes: bool = False,
    codec: str | None = None,
    container: str | None = None,
    note: Mapping[str, Any] | None = None,
    progress: Count | None = None,
) -> Rewritten:
    """Write the samples that meet all conditions as a new store: whole or not at all.

    They keep their order. Empty splits are left out. Skipped inputs stay listed if their split and
    key meet the conditions on these. Original sizes of single samples are unknown, so the card's
    ``source_bytes`` is scaled by the share of samples.

    Args:
        source: path or URL of a store, or the open store that ``rows`` refer to.
        target: path or URL, new or empty.
        splits: names of splits; all by default.
        rows: sample indices by split, int (n,), such as ``seit.stream.select`` returns for classes
            and fractions of them; a split that is not named is left out.
        keys: keys of samples; ``a.wav`` includes its windows ``a.wav#0`` …
        patterns: shell patterns of keys, any of which matches; ``*`` also matches ``/``.
        where: metadata fields and their values: text as is, anything else as JSON.
        missing: ``"ok"`` ignores keys of no sample, which are an error otherwise.
        keep_classes: keep the names of classes without remaining samples, and so all labels.
        codec: ``"packed"`` or ``"context"``; as in the source by default.
        container: ``"wds"`` or ``"zarr"``; as in the source by default.
        note: description of the choice of ``rows`` for the card's job record, as JSON.
        progress: callback for progress.

    Raises:
        UsageError: no sample is chosen, a name or key is unknown, or ``target`` is not empty.
        DamagedError: the source is damaged.
        SeitError: a disk is full or a remote server does not respond.
    """
    store = as_store(source)
    codec, container = codec or store.card.codec, container or store.card.container
    check_names(codec, container)
    check_split_names(store if splits is None else splits)
    key_set = None if keys is None else KeySet(keys)
    with work_folder(target, resumes=container == CONTAINERS[0]) as work:
        masks = _choose(store, splits, rows, key_set, patterns, where)
        skipped = _skipped(store, masks, key_set, patterns)
        if key_set and missing != "ok":
            key_set.check_found(store.folder)
        if not any(mask.any() for mask in masks.values()):
            raise UsageError(
                f"no sample of {store.folder} meets the conditions; nothing is written"
            )
        criteria = {
            "source": store.card.seal,
            "splits": list(masks),
            "keys": None if key_set is None else len(key_set.wanted),
            "patterns": list(patterns),
            "where": dict(where or {}),
            **(note or {}),
        }
        contents = _contents(store, masks, skipped, criteria, compacts=not keep_classes)
        request = {"filter": store.card.seal}
        write_contents(
            contents,
            work,
            target,
            codec=codec,
            container=container,
            request=request,
            progress=progress,
        )
    return describe(target, left_out=store.card.samples - contents.samples)


def _choose(
    store: Store,
    splits: Sequence[str] | None,
    rows: Mapping[str, npt.NDArray[np.integer]] | None,
    keys: KeySet | None,
    patterns: Sequence[str],
    where: Mapping[str, str] | None,
) -> _Masks:
    masks = {}
    for name in store if splits is None else dict.fromkeys(splits):
        split = store[name]
        if rows is not None and name not in rows:
            continue
        mask = match_samples(split, keys=keys, patterns=patterns, where=where)
        if rows is not None:
            among = np.zeros(len(split), dtype=bool)
            among[rows[name]] = True
            mask &= among
        masks[name] = mask
    return masks


def _skipped(
    store: Store, masks: _Masks, keys: KeySet | None, patterns: Sequence[str]
) -> list[bytes]:
    """Return the lines of `skipped.jsonl` to keep."""
    kept, modality = [], store.card.tokenizer.modality
    for entry, line in skipped_lines(store):
        key, split = entry["key"], entry["split"]
        if split not in masks or not (keys is None or keys.holds(key, modality)):
            continue
        is_wanted = not patterns or any(fnmatchcase(key, pattern) for pattern in patterns)
        if is_wanted and masks[split].any():
            kept.append(line)
    return kept


def _contents(
    store: Store,
    masks: _Masks,
    skipped: Sequence[bytes],
    criteria: Mapping[str, Any],
    *,
    compacts: bool,
) -> Contents:
    card = store.card
    classes, numbers = card.classes, np.arange(len(card.classes), dtype=np.int32)
    kept = {name: mask for name, mask in masks.items() if mask.any()}
    if compacts:
        classes, numbers = _compact(store, kept)

    def pieces(name: str) -> Iterator[Block]:
        return relabelled(chosen_blocks(store[name], kept[name]), numbers, where=store.folder)

    samples = sum(int(mask.sum()) for mask in kept.values())
    return Contents(
        like=store,
        splits={name: pieces(name) for name in kept},
        samples=samples,
        classes=classes,
        skipped=skipped,
        source_bytes=share_of(card.source_bytes, samples, card.samples),
        quality=card.quality,
        job=edited_job(card.job, filter={**criteria, "samples": samples}),
        shard_samples=common_shard_samples([store], card.block_samples),
        parts=[(store[name], mask) for name, mask in kept.items()],
    )


def _compact(store: Store, masks: _Masks) -> tuple[tuple[str, ...], npt.NDArray[np.int32]]:
    """Return the classes with samples, and the new label of each old one."""
    parts = [_used(store[name], mask) for name, mask in masks.items()]
    used = np.unique(np.concatenate(parts))
    used = used[used >= 0]
    numbers = np.full(len(store.classes), -1, dtype=np.int32)
    numbers[used] = np.arange(len(used), dtype=np.int32)
    return tuple(store.classes[label] for label in used.tolist()), numbers


def _used(split: Split, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the classes of the chosen samples of a split, ascending."""
    sets = split.label_sets
    if sets is None:
        return np.unique(split.labels[mask])
    bits = np.bitwise_or.reduce(sets.packed[mask], axis=0)
    return np.flatnonzero(np.unpackbits(bits, count=sets.num_classes))
