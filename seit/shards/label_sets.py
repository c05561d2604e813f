"""Several labels per sample: class names in the metadata of samples without a label of their own.

Version 1 of the format has one label per sample. A sample of several has the label −1, and the
names of its classes as a list under ``labels`` in its metadata; an empty list means none of the
classes. Names survive merges and filters, which renumber labels.

Legend: N samples of a split, K classes, n chosen samples.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError, UsageError
from seit.shards.frames import Kind

if TYPE_CHECKING:
    from seit.shards.split import Split

LABELS_KEY = "labels"
"""Name of the list in a sample's metadata."""
_COUNTED_BITS = 1 << 24
MAX_TARGET_BYTES = 1 << 34
"""Most memory for the label sets of a split."""


@dataclass(frozen=True, eq=False)
class LabelSets:
    """Label sets of a split, one bit per sample and class.

    Attributes:
        packed: uint8 (N, ⌈K / 8⌉), bits of the classes, the first class in the highest bit.
        known: bool (N,), False for a sample without labels.
        num_classes: K.
    """

    packed: npt.NDArray[np.uint8]
    known: npt.NDArray[np.bool_]
    num_classes: int

    def __len__(self) -> int:
        return len(self.known)

    def rows(self, indices: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Return the multi-hot labels float32 (n, K) of the samples ``indices`` (n,): 0 or 1.

        Unlabeled samples have −1 in every class.
        """
        bits = np.unpackbits(self.packed[indices], axis=1, count=self.num_classes)
        targets = bits.astype(np.float32)
        targets[~self.known[indices]] = -1
        return targets

    def of_samples(self, indices: npt.NDArray[np.integer]) -> "LabelSets":
        """Return the label sets of the samples ``indices`` (n,)."""
        return LabelSets(self.packed[indices], self.known[indices], self.num_classes)

    def any_of(self, wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which samples (N,) have a class of those ``wanted``, bool (K,)."""
        return np.asarray((self.packed & np.packbits(wanted)).any(axis=1))

    def rows_of(self, number: int) -> npt.NDArray[np.int64]:
        """Return the samples int64 (n,) of the class ``number``, ascending."""
        return np.flatnonzero(self.packed[:, number // 8] & np.uint8(128 >> number % 8))

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Samples of each class: int64 (K,)."""
        total = np.zeros(self.num_classes, dtype=np.int64)
        step = max(1, _COUNTED_BITS // max(1, self.num_classes))
        for start in range(0, len(self), step):
            part = self.packed[start : start + step]
            total += np.unpackbits(part, axis=1, count=self.num_classes).sum(0, dtype=np.int64)
        return total


def has_label_sets(split: "Split") -> bool:
    """Return whether samples of a split have several labels.

    They do if a sample has no label of its own, and a list under ``labels`` whose entries all are
    classes of the store. The first and the last block tell, unless all their samples are unlabeled;
    then, and in a merged store, the others are read until one tells.
    """
    if not split.classes or not len(split):
        return False
    known, last = set(split.classes), len(split.block_sizes) - 1
    is_settled = False
    for number in dict.fromkeys([0, last, *range(1, last)]):
        if is_settled and number not in (0, last):
            return False
        shard, block = split.block_at(number)
        try:
            labels = shard.open_block(block, Kind.LABELS)
            is_settled |= not split.store.card.is_merged and bool((labels >= 0).any())
            if (labels >= 0).all():
                continue
            entries = shard.open_block(block, Kind.METADATA)
        except DamagedError:  # reported by whoever reads the samples
            continue
        lists = [entry[LABELS_KEY] for entry in entries if isinstance(entry.get(LABELS_KEY), list)]
        if lists and all(_is_set(found, known) for found in lists):
            return True
    return False


def read_label_sets(split: "Split") -> LabelSets:
    """Read the label sets of all samples of a split; a label of its own counts as one of the set.

    Takes K / 8 bytes of memory per sample.

    Raises:
        DamagedError: a block is damaged, or an entry names no class of the store.
        UsageError: they take too much memory.
    """
    num_classes = len(split.classes)
    width = -(-num_classes // 8)
    if len(split) * width > MAX_TARGET_BYTES:
        raise UsageError(
            f"the labels of {len(split):,} samples of {num_classes:,} classes take more than "
            f"{MAX_TARGET_BYTES:,} bytes of memory; filter the store by class first"
        )
    split.check_files(len(split) * width)
    parts = list(read_label_set_blocks(split))
    return LabelSets(
        np.concatenate([np.empty((0, width), dtype=np.uint8), *(one.packed for one in parts)]),
        np.concatenate([np.empty(0, dtype=bool), *(one.known for one in parts)]),
        num_classes,
    )


def read_label_set_blocks(split: "Split") -> Iterator[LabelSets]:
    """Yield the label sets of the samples of each block.

    Raises:
        DamagedError: a block is damaged, or an entry names no class of the store.
    """
    number_of = {name: number for number, name in enumerate(split.classes)}
    width = -(-len(number_of) // 8)

    def read(shard: Any, block: int) -> tuple[Any, Any]:
        return shard.open_block(block, Kind.LABELS), shard.open_block(block, Kind.METADATA)

    for labels, entries in split.read_blocks(read):
        if labels.max(initial=-1) >= len(number_of):
            raise DamagedError(
                f"split {split.name!r} of {split.store.folder} holds the label {labels.max()} "
                f"where the card names {len(number_of)} classes"
            )
        is_known = labels >= 0
        rows, numbers = np.flatnonzero(is_known).tolist(), labels[is_known].tolist()
        for row, entry in enumerate(entries):
            found = entry.get(LABELS_KEY)
            if not isinstance(found, list):
                continue
            if not _is_set(found, number_of):
                raise DamagedError(
                    f"split {split.name!r} of {split.store.folder} has a sample with labels that "
                    "are no classes of the card; tokenize the corpus again"
                )
            is_known[row] = True
            rows += [row] * len(found)
            numbers += [number_of[name] for name in found]
        yield LabelSets(_pack(rows, numbers, (len(labels), width)), is_known, len(number_of))


def _pack(rows: list[int], numbers: list[int], shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Set the bits of pairs of a row and a class, in uint8 of ``shape``."""
    bits = np.zeros(shape, dtype=np.uint8)
    columns, places = np.divmod(np.array(numbers, dtype=np.int64), 8)
    values = np.right_shift(np.uint8(128), places.astype(np.uint8))
    np.bitwise_or.at(bits, (np.array(rows, dtype=np.int64), columns), values)
    return bits


def _is_set(found: list[Any], known: Any) -> bool:
    return all(isinstance(name, str) and name in known for name in found)
