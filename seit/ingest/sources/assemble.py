"""Assembly of drafts into a corpus: assign splits and labels, and warn of oddities."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence

from seit.ingest.sources.corpus import Corpus, Draft, Instance, Kind
from seit.ingest.sources.label_sets import labels_in
from seit.ingest.sources.labels import compare_splits, label_remarks
from seit.ingest.sources.splits import HashSplit
from seit.shards import check_split_names

KEEPS_ORDER: tuple[Kind, ...] = ("webdataset", "parquet")
"""Kinds of sources whose instances are read fastest in sequence."""

_FIRST_SPLITS = ("train", "val", "test")


def assemble(
    source: str,
    kind: Kind,
    drafts: Sequence[Draft],
    *,
    classes: Sequence[str],
    warnings: Sequence[str],
    hash_split: HashSplit,
    label_places: str,
) -> Corpus:
    """Split, order and number the drafts, whose keys must be unique.

    ``label_places`` ends the sentence on where labels were looked for, shown if nothing is labeled.

    Raises:
        UsageError: a split has a name that a store cannot use.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    chosen, split_remarks = hash_split.divide(drafts)
    splits: dict[str, list[Instance]] = {}
    counts: dict[str, Counter[int]] = {}
    unlabelled = 0
    for draft, split in zip(drafts, chosen, strict=True):
        label = -1 if draft.class_name is None else numbers[draft.class_name]
        instance = Instance(
            draft.key, split, label, draft.location, draft.metadata, draft.num_bytes
        )
        splits.setdefault(split, []).append(instance)
        several = None if label >= 0 else labels_in(draft.metadata)
        known = (
            [label] if several is None else [numbers[name] for name in several if name in numbers]
        )
        counts.setdefault(split, Counter()).update(known)
        unlabelled += several is None and label < 0
    notes = list(warnings)
    if not classes:
        notes.append(f"none of {len(drafts):,} instances has a label: {label_places}")
    elif unlabelled:
        notes.append(f"{unlabelled} of {len(drafts)} instances have no label")
    learned = [classes[label] for label in sorted(counts.get("train", {})) if label >= 0]
    notes += label_remarks(classes, learned or classes, is_folder=kind == "folder")
    notes += split_remarks
    notes += compare_splits(classes, counts)
    check_split_names(splits)
    instances: list[Instance] = []
    for name in sorted(splits, key=_split_rank):
        members = splits[name]
        if kind not in KEEPS_ORDER:
            members.sort(key=_shuffle_rank)
        instances += members
    return Corpus(
        source=source,
        kind=kind,
        instances=tuple(instances),
        classes=tuple(classes),
        warnings=tuple(notes),
        fingerprint=_fingerprint(kind, classes, instances),
        is_hash_split=hash_split.val_fraction > 0 and any(draft.split is None for draft in drafts),
    )


def _split_rank(name: str) -> tuple[int, str]:
    first = _FIRST_SPLITS.index(name) if name in _FIRST_SPLITS else len(_FIRST_SPLITS)
    return first, name


def _shuffle_rank(instance: Instance) -> tuple[bytes, str]:
    key = instance.key
    return hashlib.blake2b(key.encode(), digest_size=8, person=b"seit-order").digest(), key


def _fingerprint(kind: Kind, classes: Sequence[str], instances: Iterable[Instance]) -> str:
    digest = hashlib.sha256(json.dumps([kind, list(classes)]).encode())
    for item in instances:
        key = item.key.encode()
        extra = json.dumps(item.metadata).encode() if item.metadata else b""
        sizes = f"{item.label} {item.num_bytes} {item.split} {len(key)} {len(extra)} "
        digest.update(sizes.encode() + key + extra)
    return digest.hexdigest()
