"""Features as a .safetensors file.

Its tensors are `features` float32 (n, D), `labels` int64 (n,), and texts: `keys` and `classes` are
the concatenated UTF-8, `key_ends` and `class_ends` int64 the end of each in bytes.

Legend: n samples, D feature dim, B rows of a block.
"""

import shutil
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt
from typing_extensions import override

from seit.errors import UsageError
from seit.files import open_plain
from seit.tensors import StoredTensor, header_bytes, list_tensors, read_description
from seit.training.features.base import FeatureFile, FeatureWriter, Origins, row_of_origins

_FEATURES, _LABELS = "features", "labels"
_KEYS, _KEY_ENDS, _CLASSES, _CLASS_ENDS = "keys", "key_ends", "classes", "class_ends"
_DTYPES = {_FEATURES: "F32", _LABELS: "I64", _KEY_ENDS: "I64", _CLASS_ENDS: "I64"}
_MOST = 10**15
"""Number as long as the longest that the head of a file may hold."""
_Entries = dict[str, tuple[str, tuple[int, ...], int]]


class TensorFile(FeatureFile):
    """Open .safetensors file of features."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise UsageError(f"there is no file {path}; write one with `seit embed`")
        self._stored = list_tensors(path)
        card = read_description(path)
        features = self._entry(_FEATURES, axes=2)
        self._start, self.dim = features.start, features.shape[1]
        try:
            self.origins = msgspec.convert(card or {}, Origins)
        except msgspec.ValidationError as error:
            raise self.damaged(error) from error
        self.labels = self._column(_LABELS)
        self.keys = self._texts(_KEYS, _KEY_ENDS)
        self.classes = self._texts(_CLASSES, _CLASS_ENDS)
        if len(self.labels) != features.shape[0]:
            raise self.damaged(f"{len(self.labels):,} labels of {features.shape[0]:,} samples")
        self.check()

    @override
    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        size = 4 * self.dim
        data = self._bytes(self._start + start * size, (stop - start) * size)
        return np.frombuffer(data, "<f4").reshape(-1, self.dim)

    def _bytes(self, start: int, size: int) -> bytes:
        with open_plain(self.path) as file:
            file.seek(start)
            data = file.read(size)
        if len(data) != size:
            raise self.damaged("it ends early")
        return data

    def _entry(self, name: str, *, axes: int = 1) -> StoredTensor:
        found, dtype = self._stored.get(name), _DTYPES.get(name, "U8")
        if found is None or found.dtype != dtype or len(found.shape) != axes:
            raise self.damaged(f"it holds no {name} of {dtype} with {axes} axes")
        return found

    def _column(self, name: str) -> npt.NDArray[np.int64]:
        entry = self._entry(name)
        return np.frombuffer(self._bytes(entry.start, entry.num_bytes), "<i8")

    def _texts(self, name: str, ends_name: str) -> tuple[str, ...]:
        entry, ends = self._entry(name), self._column(ends_name).tolist()
        text = self._bytes(entry.start, entry.num_bytes)
        bounds = [0, *ends]
        if bounds[-1] != len(text) or any(a > b for a, b in zip(bounds, ends, strict=False)):
            raise self.damaged(f"the ends of its {name} are no ascending numbers")
        try:
            return tuple(text[a:b].decode() for a, b in zip(bounds, ends, strict=False))
        except UnicodeDecodeError as error:
            raise self.damaged(error) from error


class TensorWriter(FeatureWriter):
    """Writes a .safetensors file: features first, other tensors after them, the head last.

    Takes 16 bytes of memory per sample, and keeps the keys in a temporary file.
    """

    suffix = ".safetensors"

    def __init__(self, file: BinaryIO, *, classes: Sequence[str], origins: Origins) -> None:
        super().__init__(file, classes=classes, origins=origins)
        self._keys = TemporaryFile()  # noqa: SIM115 - closed in close
        self._dim = 0
        self._labels, self._ends = array("q"), array("q")
        self._num_key_bytes = 0
        self._head_bytes = len(self._head(_MOST, _MOST, _MOST, _MOST))
        file.write(bytes(self._head_bytes))

    @override
    def add(
        self,
        features: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64],
        keys: Sequence[str],
    ) -> None:
        self._dim = features.shape[1]
        self.file.write(np.ascontiguousarray(features, "<f4").tobytes())
        self._labels.extend(labels.tolist())
        for key in keys:
            self._num_key_bytes += self._keys.write(key.encode())
            self._ends.append(self._num_key_bytes)

    @override
    def finish(self) -> None:
        class_text, class_ends = _joined(self.classes)
        for column in (self._labels, self._ends, class_ends):
            self.file.write(np.array(column, "<i8").tobytes())
        self._keys.seek(0)
        shutil.copyfileobj(self._keys, self.file)
        self.file.write(class_text)
        self.file.seek(0)
        self.file.write(
            self._head(len(self._labels), self._dim, self._num_key_bytes, len(class_text))
        )

    @override
    def close(self) -> None:
        self._keys.close()

    def _head(self, samples: int, dim: int, key_bytes: int, class_bytes: int) -> bytes:
        count = len(self.classes)
        entries: _Entries = {
            _FEATURES: ("F32", (samples, dim), 4 * samples * dim),
            _LABELS: ("I64", (samples,), 8 * samples),
            _KEY_ENDS: ("I64", (samples,), 8 * samples),
            _CLASS_ENDS: ("I64", (count,), 8 * count),
            _KEYS: ("U8", (key_bytes,), key_bytes),
            _CLASSES: ("U8", (class_bytes,), class_bytes),
        }
        card: Mapping[str, Any] = row_of_origins(self.origins)
        return header_bytes(entries, card=card, num_bytes=getattr(self, "_head_bytes", 0))

    @classmethod
    @override
    def open(cls, path: Path) -> FeatureFile:
        return TensorFile(path)


def _joined(texts: Sequence[str]) -> tuple[bytes, "array[int]"]:
    """Return the UTF-8 of texts, and the end of each."""
    encoded = [text.encode() for text in texts]
    ends = array("q", np.cumsum([len(text) for text in encoded], dtype=np.int64).tolist())
    return b"".join(encoded), ends
