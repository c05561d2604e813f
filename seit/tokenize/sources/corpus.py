"""What a listing is: instances, classes and splits in a fixed order, with a fingerprint."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, NamedTuple, TypeAlias

from seit.classes import naming_warning

Kind: TypeAlias = Literal["folder", "manifest", "webdataset"]

Location: TypeAlias = str | tuple[str, int, int]
"""Absolute path of a file, or (absolute path of a tar, offset in bytes, size in bytes)."""

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
"""What a split may be called, in lower case → its name in a corpus."""

_FIRST_SPLITS = ("train", "val", "test")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}(\.0+)?")


@dataclass(frozen=True, slots=True)
class Instance:
    """One image or clip of a corpus; its bytes are read later, by ``read_bytes``.

    Attributes:
        key: unique name, any text without surrogates: for folders and manifests the POSIX path
            relative to the source (an absolute path in a manifest stays as written), for tars the
            tar's name and the member's path up to the first dot, "train-000.tar/000123".
        split: "train", "val", "test" or, from a manifest, another name.
        label: index into ``Corpus.classes``, or −1 when unlabelled.
        location: where the bytes are.
        metadata: extra columns of a manifest or fields of a tar's .json, as (name, JSON value).
        num_bytes: size of the file when it was listed, −1 when it could not be found.
    """

    key: str
    split: str
    label: int
    location: Location
    metadata: tuple[tuple[str, object], ...] = ()
    num_bytes: int = -1


@dataclass(frozen=True)
class Corpus:
    """A listed source.

    Attributes:
        source: the source as it was given.
        kind: how the source is laid out.
        instances: split after split (train, val, test, then the others by name). Inside a split
            the instances of folders and manifests are shuffled by a hash of their keys, so that
            every stretch mixes the classes; those of tars keep the order of the tars.
        classes: names, in the order of their labels; empty when nothing is labelled.
        warnings: one clear line each.
        fingerprint: sha256, hex, over kind, classes, splits, keys, labels, sizes in bytes and
            metadata, so not over times or absolute paths: an unchanged corpus has the same one.
    """

    source: str
    kind: Kind
    instances: Sequence[Instance]
    classes: tuple[str, ...]
    warnings: tuple[str, ...]
    fingerprint: str

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits that have instances, in the order of ``instances``."""
        return tuple(self.by_split())

    def by_split(self) -> dict[str, list[Instance]]:
        """Return split name → its instances, both in the order of ``instances``."""
        splits: dict[str, list[Instance]] = {}
        for instance in self.instances:
            splits.setdefault(instance.split, []).append(instance)
        return splits


class Draft(NamedTuple):
    """An instance whose class has a name but no index yet, and whose split may be open."""

    key: str
    split: str | None
    class_name: str | None
    location: Location
    num_bytes: int
    metadata: tuple[tuple[str, object], ...] = ()


def assemble(
    source: str,
    kind: Kind,
    drafts: Iterable[Draft],
    *,
    classes: Sequence[str],
    warnings: Sequence[str],
    val_fraction: float,
) -> Corpus:
    """Split, order and number the drafts, whose keys must be unique."""
    numbers = {name: number for number, name in enumerate(classes)}
    notes = list(warnings)
    if (remark := naming_warning(classes)) is not None:
        notes.append(remark)
    splits: dict[str, list[Instance]] = {}
    is_hashed = False
    unlabelled = total = 0
    for key, split, class_name, location, num_bytes, metadata in drafts:
        if split is None:
            split = "val" if hash_fraction(key) < val_fraction else "train"
            is_hashed = True
        label = -1 if class_name is None else numbers[class_name]
        unlabelled += label < 0
        total += 1
        instance = Instance(key, split, label, location, metadata, num_bytes)
        splits.setdefault(split, []).append(instance)
    if classes and unlabelled:
        notes.append(f"{unlabelled} of {total} instances have no label")
    empty = {"train", "val"} - splits.keys()
    if is_hashed and val_fraction > 0 and empty:
        notes.append(
            f"the hash split at val_fraction {val_fraction:g} put none of {total} instances "
            f"into {min(empty)}; name the splits in the source, or choose another fraction"
        )
    instances: list[Instance] = []
    for name in sorted(splits, key=_split_rank):
        members = splits[name]
        if kind != "webdataset":
            members.sort(key=_shuffle_rank)
        instances += members
    return Corpus(
        source=source,
        kind=kind,
        instances=tuple(instances),
        classes=tuple(classes),
        warnings=tuple(notes),
        fingerprint=_fingerprint(kind, classes, instances),
    )


def hash_fraction(key: str) -> float:
    """Map a key to 0 ≤ x < 1 by its blake2b hash: the same everywhere, whatever lies beside it."""
    digest = hashlib.blake2b(key.encode(), digest_size=8, person=b"seit-split").digest()
    return int.from_bytes(digest) / 2**64


def name_classes(labels: Sequence[str | None]) -> tuple[list[str | None], tuple[str, ...]]:
    """Find the classes of labels that may be numbers or names.

    When every label is an integer (in tables also "3.0"), the classes are the distinct numerals in
    numeric order, and −1 means unlabelled. Otherwise they are the distinct names, sorted.

    Returns:
        the class name of each label (None: unlabelled), and the classes.
    """
    given = {label for label in labels if label is not None}
    if all(_INTEGER.fullmatch(label) for label in given):
        numbers = {label: int(label.partition(".")[0]) for label in given}
        classes = [str(number) for number in sorted(set(numbers.values()) - {-1})]
        names = {label: None if n == -1 else str(n) for label, n in numbers.items()}
    else:
        classes = sorted(given)
        names = {label: label for label in given}
    return [None if label is None else names[label] for label in labels], tuple(classes)


def shown(name: str) -> str:
    """Return a name fit for one line of a message: odd characters escaped, long ones cut."""
    text = name if name.isprintable() else ascii(name)
    return text if len(text) <= 120 else f"{text[:80]}…{text[-30:]}"


def examples(names: Sequence[str]) -> str:
    """Return up to three names for a message, and say when there are more."""
    first = ", ".join(shown(name) for name in names[:3])
    return f"{first}, …" if len(names) > 3 else first


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Return ``; did you mean X?`` when a candidate is close to the name, else nothing."""
    close = get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return f"; did you mean {shown(close[0])}?" if close else ""


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
