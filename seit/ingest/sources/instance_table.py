"""Instances of a listing in columns: about 100 bytes each, where objects take 400 to 900.

Legend: N instances.
"""

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import overload

import numpy as np
import numpy.typing as npt

from seit.ingest.sources.corpus import Cell, Draft, Head, Instance, Location

_UNLISTED = -1
"""Code of None among names."""


class _Names:
    """Distinct values, numbered in the order of their first appearance; None is −1."""

    def __init__(self) -> None:
        self.values: list[str] = []
        self._codes: dict[str | None, int] = {None: _UNLISTED}

    def code(self, value: str | None) -> int:
        code = self._codes.get(value)
        if code is None:
            assert value is not None, "None has a code from the start"
            code = self._codes[value] = len(self.values)
            self.values.append(value)
        return code

    def value(self, code: int) -> str | None:
        return None if code < 0 else self.values[code]


class _Texts:
    """Texts in one buffer, which is an eighth of the memory of objects."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array("q", [0])

    def append(self, text: bytes) -> None:
        self._data += text
        self._ends.append(len(self._data))

    def __getitem__(self, row: int) -> bytes:
        return bytes(self._data[self._ends[row] : self._ends[row + 1]])


class DraftTable(Sequence[Draft]):
    """Drafts in columns; they are made again when read, so changing one needs another table."""

    def __init__(self, drafts: Iterable[Draft] = ()) -> None:
        self._keys = _Texts()
        self._metadata = _Texts()
        self._splits, self._classes, self._places = _Names(), _Names(), _Names()
        self._split_codes, self._class_codes = array("i"), array("i")
        self._place_codes, self._sizes = array("i"), array("q")
        self._offsets, self._second = array("q"), array("q")
        self._class_names: list[str | None] = [None]
        self.extend(drafts)

    def append(self, draft: Draft) -> None:
        """Add a draft."""
        key = draft.key
        self._keys.append(key.encode())
        self._metadata.append(json.dumps(draft.metadata).encode() if draft.metadata else b"")
        self._split_codes.append(self._splits.code(draft.split))
        class_code = self._classes.code(draft.class_name)
        if class_code + 1 == len(self._class_names):
            self._class_names.insert(class_code, draft.class_name)
        self._class_codes.append(class_code)
        self._sizes.append(draft.num_bytes)
        place, first, second = _packed(draft.location, key)
        self._place_codes.append(self._places.code(place))
        self._offsets.append(first)
        self._second.append(second)

    def extend(self, drafts: Iterable[Draft]) -> None:
        """Add drafts."""
        for draft in drafts:
            self.append(draft)

    @property
    def given_classes(self) -> tuple[str, ...]:
        """Distinct class names of the drafts, as they were given."""
        return tuple(self._classes.values)

    def rename_classes(self, names: Sequence[str | None]) -> None:
        """Replace each of :attr:`given_classes` by one of ``names``; None for no class."""
        self._class_names = [*names, None]

    def classes_of(self, numbers: "dict[str, int]") -> npt.NDArray[np.int32]:
        """Return the number of the class of each draft, int32 (N,), −1 for none."""
        lookup = [-1 if name is None else numbers[name] for name in self._class_names]
        labels: npt.NDArray[np.int32] = np.array(lookup, np.int32)[np.asarray(self._class_codes)]
        return labels

    def key_bytes(self, row: int) -> bytes:
        """Return a key in UTF-8."""
        return self._keys[row]

    @property
    def heads(self) -> "Sequence[Head]":
        """Keys, splits and classes of the drafts."""
        return _Heads(self)

    def head(self, row: int) -> Head:
        """Return key, split and class of a draft."""
        return Head(
            self._keys[row].decode(),
            self._splits.value(self._split_codes[row]),
            self._class_names[self._class_codes[row]],
        )

    def key_text(self, row: int) -> str:
        """Return a key."""
        return self._keys[row].decode()

    @property
    def has_unsplit(self) -> bool:
        """True if a draft has no split."""
        return _UNLISTED in self._split_codes

    def rows_with(self, name: str) -> Iterator[int]:
        """Yield the rows whose metadata may have an entry of this name."""
        text = json.dumps(name).encode()
        return (row for row in range(len(self)) if text in self._metadata[row])

    def metadata_json(self, row: int) -> bytes:
        """Return the metadata as :func:`json.dumps` writes them; nothing if there are none."""
        return self._metadata[row]

    def num_bytes(self, row: int) -> int:
        """Return the size of the file, −1 if not found."""
        return self._sizes[row]

    def location(self, row: int, key: str) -> Location:
        """Return the place of the bytes of the draft that has this key."""
        place = self._places.values[self._place_codes[row]]
        return _unpacked(place, key, self._offsets[row], self._second[row])

    def metadata(self, row: int) -> tuple[tuple[str, object], ...]:
        """Return the metadata."""
        text = self._metadata[row]
        return tuple((name, value) for name, value in json.loads(text)) if text else ()

    def __len__(self) -> int:
        return len(self._sizes)

    @overload
    def __getitem__(self, row: int) -> Draft: ...
    @overload
    def __getitem__(self, row: slice) -> list[Draft]: ...
    def __getitem__(self, row: int | slice) -> Draft | list[Draft]:
        places = range(len(self))[row]
        if isinstance(places, range):
            return [self[place] for place in places]
        key, split, class_name = self.head(places)
        location, metadata = self.location(places, key), self.metadata(places)
        return Draft(key, split, class_name, location, self._sizes[places], metadata)


class _Heads(Sequence[Head]):
    """Heads of the drafts of a table, made when they are read."""

    def __init__(self, table: DraftTable) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, row: int) -> Head: ...
    @overload
    def __getitem__(self, row: slice) -> list[Head]: ...
    def __getitem__(self, row: int | slice) -> Head | list[Head]:
        places = range(len(self))[row]
        if isinstance(places, range):
            return [self._table.head(place) for place in places]
        return self._table.head(places)

    def __iter__(self) -> Iterator[Head]:
        return map(self._table.head, range(len(self)))


class InstanceTable(Sequence[Instance]):
    """Instances made of drafts when they are read; slices share the columns.

    Args:
        drafts: all drafts.
        rows: int (N,), the draft of each instance.
        labels: int32, label of each draft.
        splits: int32, number of the split of each draft.
        split_names: names of the splits.
    """

    def __init__(
        self,
        drafts: DraftTable,
        rows: npt.NDArray[np.int64],
        labels: npt.NDArray[np.int32],
        splits: npt.NDArray[np.int32],
        split_names: tuple[str, ...],
    ) -> None:
        self._drafts = drafts
        self._rows = rows
        self._labels = labels
        self._splits = splits
        self._split_names = split_names

    def by_split(self) -> "dict[str, Sequence[Instance]]":
        """Return split name → its instances, which are neighbors."""
        codes = self._splits[self._rows]
        bounds = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
        return {
            self._split_names[codes[start]]: self[start:end]
            for start, end in pairwise(bounds)
            if end > start
        }

    def __reduce__(self) -> tuple[object, ...]:
        return tuple, (tuple(self),)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(Instance.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Instance]:
        return map(self._instance, self._rows.tolist())

    @overload
    def __getitem__(self, number: int) -> Instance: ...
    @overload
    def __getitem__(self, number: slice) -> "InstanceTable": ...
    def __getitem__(self, number: int | slice) -> "Instance | InstanceTable":
        if isinstance(number, slice):
            rows = self._rows[number]
            return InstanceTable(self._drafts, rows, self._labels, self._splits, self._split_names)
        return self._instance(int(self._rows[number]))

    def _instance(self, row: int) -> Instance:
        key = self._drafts.key_bytes(row).decode()
        return Instance(
            key,
            self._split_names[self._splits[row]],
            int(self._labels[row]),
            self._drafts.location(row, key),
            self._drafts.metadata(row),
            self._drafts.num_bytes(row),
        )


def _packed(location: Location, key: str) -> tuple[str, int, int]:
    """Return a text that many locations share, and two numbers."""
    if isinstance(location, Cell):
        return f"{location.column}\0{location.path}", location.row_group, location.row
    if isinstance(location, tuple):
        return location
    assert isinstance(location, str), "a listing holds no bytes"
    if location.endswith(key):
        return location[: len(location) - len(key)], -1, 0
    return location, -1, -1


def _unpacked(place: str, key: str, first: int, second: int) -> Location:
    if first < 0:
        return place if second < 0 else place + key
    column, separator, path = place.rpartition("\0")  # a path has no NUL
    return Cell(path, column, first, second) if separator else (place, first, second)
