"""Labels of a job in pieces: written before the classes of the whole corpus are known.

A worker writes the label "17" as 17, and other names as numbers from :data:`NAMED` on, which its
record explains. If in the end the classes are 0, 1, 2, …, every label is right already; else the
labels are renumbered when the store is sealed.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from seit.errors import UnreadableError
from seit.ingest.pieces.piece import PieceRecord
from seit.ingest.sources.corpus import shown
from seit.ingest.sources.labels import name_classes

NAMED = 1 << 24
"""First number of the labels that are names."""


class LabelNumbers:
    """Numbers of the labels of one piece.

    Args:
        classes: the classes, if they are known.
    """

    def __init__(self, classes: Sequence[str] | None) -> None:
        self._known = None if classes is None else {name: n for n, name in enumerate(classes)}
        self._named: dict[str, int] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the numbers from :data:`NAMED` on."""
        return tuple(self._named)

    def number(self, name: str | None) -> int:
        """Return the number of a label, −1 for none.

        Raises:
            UnreadableError: it is none of the known classes.
        """
        if name is None:
            return -1
        if self._known is not None:
            if name not in self._known:
                raise UnreadableError(f"its label {shown(name)} is none of the given classes")
            return self._known[name]
        if name.isascii() and name.isdigit() and len(name) <= 8 and str(int(name)) == name:
            value = int(name)
            if value < NAMED:
                return value
        return self._named.setdefault(name, NAMED + len(self._named))


def settle_classes(records: Iterable[PieceRecord]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the classes of all pieces, and the label of each name; −1 for no class."""
    numerals: set[int] = set()
    names: set[str] = set()
    for record in records:
        names.update(record.names)
        for shard in record.shards:
            numerals.update(label for label in shard.labels if 0 <= label < NAMED)
    written = [*map(str, sorted(numerals)), *sorted(names)]
    given, classes = name_classes(written)
    number_of = {name: number for number, name in enumerate(classes)}
    labels = {
        name: -1 if found is None else number_of[found]
        for name, found in zip(written, given, strict=True)
    }
    return classes, labels


def name_of(record: PieceRecord, number: int) -> str | None:
    """Return the label that a number of a piece stands for, None for −1; numerals as text.

    If the classes were known beforehand, it is the text of the number.
    """
    if number < 0:
        return None
    return str(number) if number < NAMED else record.names[number - NAMED]


def renumbering(record: PieceRecord, labels: Mapping[str, int]) -> dict[int, int]:
    """Return the label of each number of a piece that is written with another one."""
    found = {number for shard in record.shards for number in shard.labels if number >= 0}
    new = {number: labels[str(name_of(record, number))] for number in found}
    return {number: label for number, label in new.items() if label != number}


def renumbered(
    labels_N: npt.NDArray[np.int32], changes: Mapping[int, int]
) -> npt.NDArray[np.int32]:
    """Return labels int32 (N,) with the changes made, all at once."""
    found, places_N = np.unique(labels_N, return_inverse=True)
    new = np.array([changes.get(label, label) for label in found.tolist()], dtype=np.int32)
    return new[places_N]
