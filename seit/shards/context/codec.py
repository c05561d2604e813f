"""`context`: tokens entropy-coded by their neighbors.

Legend: N samples of the block, H W grid, K codes.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from seit.errors import DamagedError, UsageError
from seit.shards.codecs import Codec, PackedCodec, TokenLayout, check_block_size, unpack_rows
from seit.shards.context.tables import MAX_CODES, ContextTables
from seit.shards.frames import Coding, Frame, Kind, seal_frame

if TYPE_CHECKING:
    from seit.shards.context.coder import Coder

MAX_WORDS = (1 << 16) - 1
"""Most 16-bit words of a sample; a block with a longer one is packed."""


class ContextCodec(Codec):
    """Codec with one stream per sample, so that any sample can be decoded alone.

    A block that would not become smaller is packed.

    Raises:
        UsageError: K > 4,096.
        DamagedError: the tables are not for K codes.
    """

    name = "context"

    def __init__(self, layout: TokenLayout, tables: ContextTables) -> None:
        super().__init__(layout)
        if layout.num_codes > MAX_CODES:
            raise UsageError(
                f"the context codec supports up to {MAX_CODES:,} codes, not {layout.num_codes:,}; "
                "use --codec packed"
            )
        if tables.num_codes != layout.num_codes:
            raise DamagedError(
                f"context tables for {tables.num_codes} codes stand in a store of "
                f"{layout.num_codes}; restore codebook.safetensors from a copy"
            )
        self._tables = tables

    @classmethod
    def build(cls, layout: TokenLayout, tables: bytes | None) -> Self:
        """Build the codec from the tables that the store keeps.

        Raises:
            UsageError: K > 4,096.
            DamagedError: the tables are missing or not for K codes.
        """
        if tables is None:
            raise DamagedError(
                "the tables of the context codec are missing; restore them from a copy"
            )
        return cls(layout, ContextTables.from_bytes(tables, layout.num_codes))

    @cached_property
    def tables(self) -> bytes:
        """Serialized tables (:class:`~seit.shards.context.tables.ContextTables`)."""
        return self._tables.to_bytes()

    def encode(self, tokens_NHW: npt.NDArray[np.unsignedinteger]) -> bytes:
        """Encode ids into a tokens frame, packed if that is smaller."""
        count = len(tokens_NHW)
        check_block_size(count, self.layout)
        words, sizes = self._coder.encode(
            tokens_NHW.reshape(count, self.layout.length).astype(np.uint16, copy=False),
            self.layout.grid,
        )
        raw_bytes = count * self.layout.sample_bytes
        if 2 * (count + len(words)) >= raw_bytes or sizes.max(initial=0) > MAX_WORDS:
            return PackedCodec(self.layout).encode(tokens_NHW)
        payload = sizes.astype("<u2").tobytes() + words.astype("<u2").tobytes()
        return seal_frame(
            Kind.TOKENS, payload, count=count, raw_bytes=raw_bytes, coding=Coding.CONTEXT
        )

    @override
    def stored_bytes(self, data: bytes) -> npt.NDArray[np.int64]:
        frame = self._open(data)
        if frame.coding is not Coding.CONTEXT:
            return super().stored_bytes(data)
        _, bounds = split_streams(frame)
        return 2 * (bounds[:, 1] - bounds[:, 0])

    @cached_property
    def _coder(self) -> "Coder":
        from seit.shards.context.coder import Coder  # loads Numba

        return Coder(self._tables)

    def _decode(
        self, frame: Frame, rows: npt.NDArray[np.integer] | None
    ) -> npt.NDArray[np.unsignedinteger]:
        if frame.coding is Coding.RAW:
            return unpack_rows(frame, rows, self.layout)
        words, bounds = split_streams(frame)
        if rows is not None:
            bounds = bounds[rows]
        if not len(bounds):
            return np.empty((0, *self.layout.grid), dtype=self.layout.dtype)
        tokens_NHW, whole_N = self._coder.decode(words, bounds, self.layout.grid)
        if not whole_N.all():
            raise DamagedError(f"the stream of sample {int(np.argmin(whole_N))} is not whole")
        if int(tokens_NHW.max(initial=0)) >= self.layout.num_codes:
            raise DamagedError(f"a stream leads to an id that is not below {self.layout.num_codes}")
        return tokens_NHW


def split_streams(frame: Frame) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64]]:
    """Return the words of a context frame, and the bounds int64 (N, 2) of each sample's stream.

    Raises:
        DamagedError: the sizes of the streams do not add up to the frame's.
    """
    payload, count = frame.raw, frame.count
    if len(payload) < 2 * count or len(payload) % 2:
        raise DamagedError(f"{len(payload)} bytes cannot hold the streams of {count} samples")
    values = np.frombuffer(payload, dtype="<u2").astype(np.uint16, copy=False)
    sizes, words = values[:count].astype(np.int64), values[count:]
    ends = np.cumsum(sizes)
    if sizes.min(initial=2) < 2 or (ends[-1] if count else 0) != len(words):
        raise DamagedError("the streams of a frame do not add up to its size")
    return words, np.stack([ends - sizes, ends], axis=1)
