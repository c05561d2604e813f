"""Base of all codecs (the tokens of a block ↔ one frame), and the packed one.

Legend: N samples of the block, H W grid, L = H·W tokens per sample, S bytes per packed sample,
K codes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError, SeitError
from seit.shards.frames import Coding, Frame, Kind, decode_frame, encode_frame
from seit.shards.packed import pack, sample_bytes, token_bits, token_dtype, unpack

MAX_BLOCK_TOKENS = 1 << 28
"""Most tokens in a block: unpacked they take up to 1 GiB."""


@dataclass(frozen=True)
class TokenLayout:
    """Shape and range of tokens: the ``grid`` (H, W) and the number of codes K."""

    grid: tuple[int, int]
    num_codes: int

    @property
    def length(self) -> int:
        """Tokens per sample, H·W."""
        return self.grid[0] * self.grid[1]

    @property
    def bits(self) -> int:
        """Bits per token in the codec `packed`."""
        return token_bits(self.num_codes)

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """Dtype of ids: uint16, or uint32 if K > 65,536."""
        return token_dtype(self.num_codes)

    @property
    def sample_bytes(self) -> int:
        """Bytes per packed sample."""
        return sample_bytes(self.length, self.bits)


class Codec(ABC):
    """Tokens of a block ↔ a frame; cards refer to a codec by its ``name``."""

    name: ClassVar[str]

    def __init__(self, layout: TokenLayout) -> None:
        self.layout = layout

    @classmethod
    @abstractmethod
    def build(cls, layout: TokenLayout, tables: bytes | None) -> Self:
        """Build the codec from the ``tables`` that a store keeps.

        Raises:
            DamagedError: the tables are missing, or invalid for the codec.
        """

    @property
    def tables(self) -> bytes | None:
        """Serialized tables that a reader needs besides the layout; None if there are none."""
        return None

    @property
    def card_entry(self) -> Mapping[str, Any]:
        """Entry of the codec in the card: ``{"name": …, "bits": b}``, b bits per packed token."""
        return {"name": self.name, "bits": self.layout.bits}

    @abstractmethod
    def encode(self, tokens_NHW: npt.NDArray[np.unsignedinteger]) -> bytes:
        """Encode ids, each below K, into a tokens frame.

        Raises:
            SeitError: there are too many for any reader.
        """

    def decode(self, data: bytes) -> npt.NDArray[np.unsignedinteger]:
        """Decode a tokens frame: ids (N, H, W), uint16 or uint32.

        Raises:
            DamagedError: the bytes are not a valid frame.
        """
        return self._decode(self._open(data), None)

    def decode_rows(
        self, data: bytes, rows: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.unsignedinteger]:
        """Decode only the samples ``rows`` (n,) of a frame: ids (n, H, W)."""
        return self._decode(self._open(data), rows)

    def decode_packed(self, data: bytes) -> npt.NDArray[np.uint8]:
        """Decode a tokens frame as packed samples: uint8 (N, S)."""
        frame = self._open(data)
        if frame.coding is Coding.RAW:
            return _packed_rows(frame, self.layout)
        tokens_NHW = self._decode(frame, None)
        return pack(tokens_NHW.reshape(-1, self.layout.length), self.layout.bits)

    def stored_bytes(self, data: bytes) -> npt.NDArray[np.int64]:
        """Return the bytes that each sample of a tokens frame takes: int64 (N,).

        Raises:
            DamagedError: the bytes are not a valid frame.
        """
        frame = self._open(data)
        return np.full(frame.count, self.layout.sample_bytes, dtype=np.int64)

    @abstractmethod
    def _decode(
        self, frame: Frame, rows: npt.NDArray[np.integer] | None
    ) -> npt.NDArray[np.unsignedinteger]:
        """Decode all samples of a checked frame, or only ``rows``."""

    def _open(self, data: bytes) -> Frame:
        """Check a tokens frame, including that its numbers of tokens and samples agree."""
        frame = decode_frame(data, kind=Kind.TOKENS)
        if frame.raw_bytes != frame.count * self.layout.sample_bytes:
            raise DamagedError(
                f"{frame.count} samples of {self.layout.sample_bytes} bytes were expected in a "
                f"tokens frame that holds {frame.raw_bytes} bytes"
            )
        if frame.count * self.layout.length > MAX_BLOCK_TOKENS:
            raise DamagedError(
                f"{frame.count} samples of {self.layout.length} tokens are over the limits"
            )
        return frame


class PackedCodec(Codec):
    """`packed`: every token in ceil(log2 K) bits (:mod:`seit.shards.packed`)."""

    name = "packed"

    @classmethod
    def build(cls, layout: TokenLayout, tables: bytes | None) -> Self:  # noqa: ARG003
        """Build the codec, which needs no tables."""
        return cls(layout)

    def encode(self, tokens_NHW: npt.NDArray[np.unsignedinteger]) -> bytes:
        """Encode ids into a raw tokens frame."""
        count = len(tokens_NHW)
        check_block_size(count, self.layout)
        packed_NS = pack(tokens_NHW.reshape(count, self.layout.length), self.layout.bits)
        return encode_frame(Kind.TOKENS, packed_NS.tobytes(), count=count, coding=Coding.RAW)

    def _decode(
        self, frame: Frame, rows: npt.NDArray[np.integer] | None
    ) -> npt.NDArray[np.unsignedinteger]:
        if frame.coding is not Coding.RAW:
            raise DamagedError(
                f"a tokens frame of coding {frame.coding.name.lower()} stands in a packed store"
            )
        return unpack_rows(frame, rows, self.layout)


def unpack_rows(
    frame: Frame, rows: npt.NDArray[np.integer] | None, layout: TokenLayout
) -> npt.NDArray[np.unsignedinteger]:
    """Unpack a raw tokens frame, or only its ``rows`` (n,): ids (n, H, W)."""
    packed_NS = _packed_rows(frame, layout)
    if rows is not None:
        packed_NS = packed_NS[rows]
    tokens_NL = unpack(packed_NS, length=layout.length, num_codes=layout.num_codes)
    return tokens_NL.reshape(-1, *layout.grid)


def check_block_size(count: int, layout: TokenLayout) -> None:
    """Refuse to encode more tokens than any reader takes.

    Raises:
        SeitError: ``count`` samples are over the limit.
    """
    if count * layout.length > MAX_BLOCK_TOKENS:
        raise SeitError(
            f"a block of {count} samples of {layout.length} tokens is over the limit of "
            f"{MAX_BLOCK_TOKENS} tokens: write fewer samples per block"
        )


def _packed_rows(frame: Frame, layout: TokenLayout) -> npt.NDArray[np.uint8]:
    return np.frombuffer(frame.raw, dtype=np.uint8).reshape(frame.count, layout.sample_bytes)
