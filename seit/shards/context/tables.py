"""Tables of the `context` codec, stored once per store, and their serialization.

Legend: K codes, R entries of a row (:mod:`seit.shards.context.tree`), R0 those of the first group
of levels.
"""

import lzma
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError
from seit.shards.context.tree import TreeShape

PROBABILITY_BITS = 15
"""Probabilities are integers over 2**15."""
MAX_CODES = 4096
"""Above it the tables would be larger than what they save."""
LEFT, UPPER, UPPER_RIGHT = 0, 1, 2
NEIGHBOURS = ((0, -1), (-1, 0), (-1, 1))
"""(row, column) of the left, upper and upper-right neighbor, relative to a token."""
MAX_SCORE = 96
"""Scores are clipped to −96 … 96, in eighths of a nat."""
_VERSION = 1
_HEADER = struct.Struct("<BBHI")
_MAX_SQUASHED = (1 << PROBABILITY_BITS) - 1


@dataclass(frozen=True, eq=False)
class ContextTables:
    """Tables for decoding.

    A turn's score is the sum of the neighbors' weights at its inner node, in eighths of a nat: all
    three in the first group of levels, the left and the upper one below it. The node's bias is
    added to the upper neighbor's weight, and the sum clipped to an int8. ``squash`` maps the
    score, clipped to ±``MAX_SCORE``, to the probability of turn 0. A neighbor outside the grid has
    the id K.

    Attributes:
        num_codes: K.
        paths: uint16 (K,), the leaf of each code.
        squash: uint16 (2·MAX_SCORE + 1,), each 1 … 2**15 − 1.
        bias: int16 (R,).
        weights: int8 (2, K + 1, R), of the left and the upper neighbor.
        corner: int8 (K + 1, R0), of the upper-right neighbor.
    """

    num_codes: int
    paths: npt.NDArray[np.uint16]
    squash: npt.NDArray[np.uint16]
    bias: npt.NDArray[np.int16]
    weights: npt.NDArray[np.int8]
    corner: npt.NDArray[np.int8]

    @cached_property
    def shape(self) -> TreeShape:
        """Shape of the tree."""
        return TreeShape(self.num_codes)

    @cached_property
    def codes(self) -> npt.NDArray[np.uint16]:
        """Leaf → code, uint16 (2**b,); K if a leaf is unused."""
        codes = np.full(self.shape.num_leaves, self.num_codes, dtype=np.uint16)
        codes[self.paths] = np.arange(self.num_codes, dtype=np.uint16)
        return codes

    def to_bytes(self) -> bytes:
        """Serialize to an .xz stream of header, paths, squash, bias, weights, corner."""
        header = _HEADER.pack(_VERSION, len(NEIGHBOURS), MAX_SCORE, self.num_codes)
        raw = b"".join(
            [
                header,
                self.paths.astype("<u2").tobytes(),
                self.squash.astype("<u2").tobytes(),
                self.bias.astype("<i2").tobytes(),
                self.weights.tobytes(),
                self.corner.tobytes(),
            ]
        )
        return lzma.compress(raw, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, preset=6)

    @classmethod
    def from_bytes(cls, data: bytes, num_codes: int) -> "ContextTables":
        """Read the output of :meth:`to_bytes` for a store of ``num_codes`` codes.

        Raises:
            DamagedError: the bytes are not valid tables.
        """
        if not 2 <= num_codes <= MAX_CODES:
            raise DamagedError(f"tables for {num_codes} codes: context supports 2 to {MAX_CODES}")
        shape = TreeShape(num_codes)
        sizes = {
            "paths": num_codes,
            "squash": 2 * MAX_SCORE + 1,
            "bias": shape.row_size,
            "weights": 2 * (num_codes + 1) * shape.row_size,
            "corner": (num_codes + 1) * shape.first_size,
        }
        types = {"paths": "<u2", "squash": "<u2", "bias": "<i2", "weights": "i1", "corner": "i1"}
        num_bytes = sum(np.dtype(types[name]).itemsize * size for name, size in sizes.items())
        raw = _decompress(data, _HEADER.size + num_bytes)
        expected = (_VERSION, len(NEIGHBOURS), MAX_SCORE, num_codes)
        if (found := _HEADER.unpack_from(raw)) != expected:
            raise DamagedError(f"context tables begin with {found}, not {expected}: upgrade seit")
        arrays, offset = {}, _HEADER.size
        for name, size in sizes.items():
            dtype = np.dtype(types[name])
            arrays[name] = np.frombuffer(raw, dtype, size, offset).astype(dtype.newbyteorder("="))
            offset += size * dtype.itemsize
        _check(arrays["paths"], arrays["squash"], shape.num_leaves)
        return cls(
            num_codes=num_codes,
            paths=arrays["paths"],
            squash=arrays["squash"],
            bias=arrays["bias"],
            weights=arrays["weights"].reshape(2, num_codes + 1, shape.row_size),
            corner=arrays["corner"].reshape(num_codes + 1, shape.first_size),
        )

    @cached_property
    def folded(self) -> npt.NDArray[np.int8]:
        """Weights int8 (2, K + 1, R) with the bias added to the upper neighbor's."""
        folded = self.weights.copy()
        folded[UPPER] = np.clip(self.weights[UPPER].astype(np.int32) + self.bias, -128, 127)
        return folded


def make_squash() -> npt.NDArray[np.uint16]:
    """Return the logistic function of every score, as the probability of turn 0: uint16."""
    scores = np.arange(-MAX_SCORE, MAX_SCORE + 1) / 8
    probabilities = (1 << PROBABILITY_BITS) / (1 + np.exp(scores))
    return np.clip(np.round(probabilities), 1, _MAX_SQUASHED).astype(np.uint16)


def _decompress(data: bytes, num_bytes: int) -> bytes:
    opened = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=1 << 27)
    try:
        raw = opened.decompress(data, max_length=num_bytes + 1)
    except lzma.LZMAError as error:
        raise DamagedError(f"context tables do not decompress: {error}") from error
    if len(raw) != num_bytes or not opened.eof or opened.unused_data:
        raise DamagedError(f"context tables unfold to {len(raw)} bytes where {num_bytes} belong")
    return raw


def _check(paths: npt.NDArray[Any], squash: npt.NDArray[Any], num_leaves: int) -> None:
    if paths.max() >= num_leaves or len(np.unique(paths)) != len(paths):
        raise DamagedError("context tables place two codes at one leaf, or one outside the tree")
    if squash.min() < 1 or squash.max() > _MAX_SQUASHED:
        raise DamagedError("context tables hold a probability that is none")
