"""Result of a listing: instances, classes and splits in a fixed order, with a fingerprint."""

import hashlib
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

from seit.progress import Pulse

_LOG = logging.getLogger(__name__)
Kind: TypeAlias = Literal["folder", "manifest", "webdataset", "parquet"]


class Cell(NamedTuple):
    """Value in a Parquet file: ``path`` is absolute or a URL, ``column`` dotted, rows from 0."""

    path: str
    column: str
    row_group: int
    row: int


Location: TypeAlias = str | tuple[str, int, int] | Cell | bytes
"""Absolute path of a file, (absolute path of a tar, offset in bytes, size in bytes), row of a
Parquet file, or the bytes themselves."""

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""Lower-case name of a split in a source → its name in a corpus."""
SPLIT_WORD = re.compile(rf"(?<![a-z])({'|'.join(SPLIT_NAMES)})(?![a-z])")
"""Pattern of a split in a lower-case name, as in "imagenet-train-0001"."""


@dataclass(frozen=True, slots=True)
class Instance:
    """Image or clip of a corpus; ``read_bytes`` reads its bytes later.

    Attributes:
        key: unique name, any text without surrogates: for folders and manifests the POSIX path
            relative to the source (an absolute path in a manifest stays as written); for tars the
            tar's name and the member's path up to the first dot, "train-000.tar/000123"; for
            Parquet the split and the row's path or number, "train/000123".
        split: "train", "val", "test" or, from a manifest, another name.
        label: index into ``Corpus.classes``, or −1 if unlabeled.
        location: place of the bytes.
        metadata: extra columns of a manifest or fields of a tar's .json, as (name, JSON value).
        num_bytes: size of the file at listing, −1 if not found; the row group's mean for Parquet.
    """

    key: str
    split: str
    label: int
    location: Location
    metadata: tuple[tuple[str, object], ...] = ()
    num_bytes: int = -1


@runtime_checkable
class DividedInstances(Protocol):
    """Sequence of instances that knows its splits, and need not be read to find them."""

    def by_split(self) -> "dict[str, Sequence[Instance]]":
        """Return split name → its instances."""
        ...


@dataclass(frozen=True)
class Corpus:
    """Listed source.

    Attributes:
        source: the source as given.
        kind: layout of the source.
        instances: all instances, split by split (train, val, test, then the others by name). Within
            a split, instances of folders and manifests are shuffled by a hash of their keys, so
            that every stretch mixes the classes; those of tars and Parquet files keep their order.
        classes: names in label order; empty if nothing is labeled.
        warnings: one line each.
        fingerprint: sha256, hex, over kind, classes, splits, keys, labels, sizes in bytes and
            metadata, but not times or absolute paths, so that it is stable for an unchanged corpus.
        is_hash_split: whether any instance was assigned to train or val by the hash of its key.
    """

    source: str
    kind: Kind
    instances: Sequence[Instance]
    classes: tuple[str, ...]
    warnings: tuple[str, ...]
    fingerprint: str
    is_hash_split: bool = False

    @property
    def split_names(self) -> tuple[str, ...]:
        """Non-empty splits, in the order of ``instances``."""
        return tuple(self.by_split())

    def by_split(self) -> dict[str, Sequence[Instance]]:
        """Return split name → its instances, both in the order of ``instances``."""
        if isinstance(self.instances, DividedInstances):
            return self.instances.by_split()
        splits: dict[str, list[Instance]] = {}
        for instance in self.instances:
            splits.setdefault(instance.split, []).append(instance)
        return dict(splits)


class SourceFile(NamedTuple):
    """Tar or Parquet file: its location, its path below the corpus, and its folder's name."""

    location: str
    relative: str
    folder: str


class Head(NamedTuple):
    """Key of a draft, and the split and the class that it was given; they decide its split."""

    key: str
    split: str | None
    class_name: str | None


class Draft(NamedTuple):
    """Instance with a class name instead of an index, and perhaps without a split."""

    key: str
    split: str | None
    class_name: str | None
    location: Location
    num_bytes: int
    metadata: tuple[tuple[str, object], ...] = ()


def listing_pulse(source: str) -> Pulse:
    """Return what logs, every few seconds, how many files a listing has found."""
    name = shown(source).replace("{", "{{").replace("}", "}}")
    return Pulse(_LOG.info, f"listing {name}: {{:,}} files so far")


def shuffle_rank(key: bytes) -> int:
    """Map a key in UTF-8 to its place in a mixed order, 0 to 2^64 − 1."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8, person=b"seit-order").digest())


def shown(name: str) -> str:
    """Return a name for one line of a message: odd characters escaped, long names cut."""
    text = name if name.isprintable() else ascii(name)
    return text if len(text) <= 120 else f"{text[:80]}…{text[-30:]}"


def examples(names: Sequence[str]) -> str:
    """Return up to three names for a message, noting if there are more."""
    first = ", ".join(shown(name) for name in names[:3])
    return f"{first}, …" if len(names) > 3 else first


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Return ``; did you mean X?`` if a candidate is close to the name, else an empty string."""
    close = get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return f"; did you mean {shown(close[0])}?" if close else ""
