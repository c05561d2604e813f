"""The codec `seit` of Zarr v3: a chunk of token grids ↔ one tokens frame.

Zarr libraries find it by the entry point `zarr.codecs`, so that ``zarr.open(path)["tokens"][3:7]``
only requires this package to be installed. To use it as the serializer of your own array::

    codec = SeitCodec.wrap(PackedCodec(TokenLayout(grid=(16, 16), num_codes=1000)))
    zarr.create_array(path, shape=(N, 16, 16), chunks=(1024, 16, 16), dtype="uint16",
                      serializer=codec, compressors=None)

(a compressor saves nothing on such chunks and makes Zarr decode whole ones for a single row).

Legend: n rows of a chunk, H W grid, K codes.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from typing_extensions import override
from zarr.abc.codec import ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin
from zarr.abc.store import ByteGetter
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.chunk_grids import ChunkGrid, RegularChunkGrid
from zarr.core.dtype.wrapper import TBaseDType, TBaseScalar, ZDType
from zarr.core.indexing import SelectorTuple

from seit.documents import as_record
from seit.errors import DamagedError, UsageError
from seit.shards.card import GridSide, NumCodes
from seit.shards.codec_registry import build_codec
from seit.shards.codecs import Codec, PackedCodec, TokenLayout
from seit.shards.zarr.chunks import decode_rows, pad_rows
from seit.shards.zarr.documents import CODEC_NAME, codec_configuration


@dataclass(frozen=True)
class _CodecEntry:
    name: str


@dataclass(frozen=True)
class _Configuration:
    """Entry of the codec in `zarr.json`; ``tables`` are base64 there."""

    codec: _CodecEntry
    codes: NumCodes
    grid: tuple[GridSide, GridSide]
    tables: bytes | None = None


@dataclass(frozen=True)
class SeitCodec(ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin):
    """Chunk (n, H, W) of ids, uint16 or uint32 if K > 65,536, ↔ one tokens frame.

    Rows of zeros at the end of a chunk are left out of its frame and read as zeros, so the padding
    of an array's last chunk takes no space.

    Attributes:
        name: name of the frames' codec in the card of a store.
        layout: the grid (H, W) and the number of codes K.
        tables: tables of that codec, if it has any.
    """

    is_fixed_size = False

    name: str
    layout: TokenLayout
    tables: bytes | None = None

    @classmethod
    def wrap(cls, codec: Codec) -> Self:
        """Return the Zarr codec whose chunks are the frames of ``codec``."""
        return cls(name=codec.name, layout=codec.layout, tables=codec.tables)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build the codec from its entry in `zarr.json`.

        Raises:
            UsageError: this version of seit lacks the codec that it names.
            DamagedError: the entry is invalid.
        """
        configuration = data.get("configuration")
        found = as_record(
            configuration,
            _Configuration,
            origin=f"the configuration of the codec {CODEC_NAME!r} in zarr.json",
        )
        layout = TokenLayout(grid=found.grid, num_codes=found.codes)
        codec = cls(name=found.codec.name, layout=layout, tables=found.tables)
        tables = None if codec.name == PackedCodec.name else codec.tables
        if _json(codec_configuration(codec.frames, tables)) != _json(configuration):
            raise DamagedError(
                f"the configuration of the codec {CODEC_NAME!r} in zarr.json does not agree with "
                "itself; restore it from a copy"
            )
        return codec

    def to_dict(self) -> dict[str, Any]:
        """Return the codec's entry in `zarr.json`."""
        return {"name": CODEC_NAME, "configuration": codec_configuration(self.frames, self.tables)}

    @property
    def frames(self) -> Codec:
        """Codec of the frames.

        Raises:
            UsageError: this version of seit has no codec of that name.
            DamagedError: the tables are invalid for the codec.
        """
        return _build_once(self.name, self.layout, self.tables)

    @override
    def validate(
        self,
        *,
        shape: tuple[int, ...],
        dtype: ZDType[TBaseDType, TBaseScalar],
        chunk_grid: ChunkGrid,
    ) -> None:
        """Refuse an array that does not fit the codec.

        Raises:
            UsageError: its dtype or the shape of its chunks does not fit.
        """
        assert isinstance(chunk_grid, RegularChunkGrid), "Zarr has no other grid"
        self._check(chunk_grid.chunk_shape, dtype)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Raise NotImplementedError: the size of a chunk depends on its content."""
        raise NotImplementedError

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    async def _decode_partial_single(
        self, byte_getter: ByteGetter, selection: SelectorTuple, chunk_spec: ArraySpec
    ) -> NDBuffer | None:
        chunk_data = await byte_getter.get(prototype=chunk_spec.prototype)
        if chunk_data is None:
            return None
        return await asyncio.to_thread(self._decode_selection, chunk_data, selection, chunk_spec)

    def _encode_sync(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        self._check(chunk_spec.shape, chunk_spec.dtype)
        tokens_nHW = np.ascontiguousarray(chunk_data.as_numpy_array(), dtype=self.layout.dtype)
        highest = int(tokens_nHW.max(initial=0))
        if highest >= self.layout.num_codes:
            raise UsageError(
                f"a chunk holds the id {highest} where the codec takes ids below "
                f"{self.layout.num_codes}"
            )
        used = np.flatnonzero(tokens_nHW.any(axis=(1, 2)))
        count = int(used[-1]) + 1 if used.size else 0
        return chunk_spec.prototype.buffer.from_bytes(self.frames.encode(tokens_nHW[:count]))

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        self._check(chunk_spec.shape, chunk_spec.dtype)
        tokens_nHW = pad_rows(self.frames.decode(chunk_data.to_bytes()), chunk_spec.shape[0])
        return chunk_spec.prototype.nd_buffer.from_numpy_array(tokens_nHW)

    def _decode_selection(
        self, chunk_data: Buffer, selection: SelectorTuple, chunk_spec: ArraySpec
    ) -> NDBuffer:
        """Decode only the rows that ``selection`` touches."""
        self._check(chunk_spec.shape, chunk_spec.dtype)
        rows, selection = _rows_of(selection, chunk_spec.shape[0])
        tokens_rHW = decode_rows(self.frames, chunk_data.to_bytes(), rows, most=chunk_spec.shape[0])
        return chunk_spec.prototype.nd_buffer.from_numpy_array(np.asarray(tokens_rHW[selection]))

    def _check(self, chunk_shape: tuple[int, ...], dtype: ZDType[TBaseDType, TBaseScalar]) -> None:
        found, expected = dtype.to_native_dtype(), self.layout.dtype
        if found.newbyteorder("=") != expected:
            raise UsageError(
                f"ids below {self.layout.num_codes} are {expected.name}; the array holds {found}"
            )
        if len(chunk_shape) != 3 or chunk_shape[1:] != self.layout.grid:
            height, width = self.layout.grid
            raise UsageError(
                f"the chunks of the array are {chunk_shape} where the codec takes (n, {height}, "
                f"{width}): cut the array along its first axis only"
            )


@lru_cache(maxsize=16)
def _build_once(name: str, layout: TokenLayout, tables: bytes | None) -> Codec:
    return build_codec(name, layout, tables=tables)


def _json(configuration: object) -> str:
    return json.dumps(configuration, sort_keys=True)


def _rows_of(
    selection: SelectorTuple, num_rows: int
) -> tuple[npt.NDArray[np.intp], tuple[Any, ...]]:
    """Return the rows (r,) that a selection of a chunk touches, and the selection within them."""
    parts: tuple[Any, ...] = selection if isinstance(selection, tuple) else (selection,)
    touched = np.asarray(np.arange(num_rows)[parts[0]])
    if isinstance(parts[0], slice):
        return touched, (slice(None), *parts[1:])
    rows, places = np.unique(touched, return_inverse=True)
    return rows, (places.reshape(touched.shape), *parts[1:])
