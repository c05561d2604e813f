"""Blocks: up to 1,024 samples coded together, the unit of checksum and random access.

Shape letters: N samples of the block, H W grid, K codes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError, SeitError
from seit.shards.frames import Coding, Kind, decode_frame, encode_frame
from seit.shards.packed import pack, sample_bytes, token_bits, token_dtype, unpack

MAX_BLOCK_TOKENS = 1 << 28
"""No block holds more tokens: unpacked they take up to 1 GiB."""

BLOCK_SAMPLES = 1024
"""Samples per block; only the last block of a shard may hold fewer."""

MEMBER_SUFFIXES = {
    Kind.TOKENS: "tokens",
    Kind.LABELS: "labels",
    Kind.KEYS: "keys",
    Kind.METADATA: "metadata",
}


@dataclass(frozen=True)
class TokenLayout:
    """What a reader must know of tokens: the ``grid`` (H, W) and the number of codes K."""

    grid: tuple[int, int]
    num_codes: int

    @property
    def length(self) -> int:
        """Tokens per sample, H·W."""
        return self.grid[0] * self.grid[1]

    @property
    def bits(self) -> int:
        """Bits per token in the packed codec."""
        return token_bits(self.num_codes)

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """The dtype of ids: uint16, or uint32 when K > 65,536."""
        return token_dtype(self.num_codes)

    @property
    def sample_bytes(self) -> int:
        """Bytes per packed sample."""
        return sample_bytes(self.length, self.bits)


@dataclass(frozen=True)
class Block:
    """Samples before coding: ids (N, H, W), labels int32 (N,) with −1 for none, N keys.

    ``metadata`` is one JSON-serialisable mapping a sample, or None when no sample has any.
    """

    tokens: npt.NDArray[np.unsignedinteger]
    labels: npt.NDArray[np.int32]
    keys: tuple[str, ...]
    metadata: tuple[Mapping[str, Any], ...] | None = None


def encode_block(block: Block, layout: TokenLayout) -> dict[Kind, bytes]:
    """Code a block into its frames, by kind.

    Raises:
        SeitError: it is too large for any reader.
    """
    count = len(block.keys)
    assert block.tokens.shape == (count, *layout.grid), "tokens do not fit the layout"
    assert block.labels.shape == (count,), "one label a sample"
    assert block.metadata is None or len(block.metadata) == count, "one mapping a sample"
    assert int(block.tokens.max(initial=0)) < layout.num_codes, "an id is not below K"
    if block.tokens.size > MAX_BLOCK_TOKENS:
        raise SeitError(
            f"a block of {count} samples of {layout.length} tokens is over the limit of "
            f"{MAX_BLOCK_TOKENS} tokens: write fewer samples a block"
        )
    packed_NS = pack(block.tokens.reshape(count, layout.length), layout.bits)
    frames = {
        Kind.TOKENS: encode_frame(Kind.TOKENS, packed_NS.tobytes(), count=count, coding=Coding.RAW),
        Kind.LABELS: encode_frame(
            Kind.LABELS,
            block.labels.astype("<i4").tobytes(),
            count=count,
            coding=Coding.DEFLATE,
        ),
        Kind.KEYS: encode_frame(
            Kind.KEYS, _encode_strings(block.keys), count=count, coding=Coding.DEFLATE
        ),
    }
    if block.metadata is not None:
        texts = tuple(
            json.dumps(
                entry, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
            )
            for entry in block.metadata
        )
        frames[Kind.METADATA] = encode_frame(
            Kind.METADATA, _encode_strings(texts), count=count, coding=Coding.DEFLATE
        )
    return frames


def decode_packed(data: bytes, layout: TokenLayout) -> npt.NDArray[np.uint8]:
    """Open a tokens frame and leave it packed: uint8 (N, sample_bytes)."""
    frame = decode_frame(data, kind=Kind.TOKENS)
    if len(frame.raw) != frame.count * layout.sample_bytes:
        raise DamagedError(
            f"{frame.count} samples of {layout.sample_bytes} bytes were expected in a tokens "
            f"frame that holds {len(frame.raw)} bytes"
        )
    if frame.count * layout.length > MAX_BLOCK_TOKENS:
        raise DamagedError(f"{frame.count} samples of {layout.length} tokens are over the limits")
    return np.frombuffer(frame.raw, dtype=np.uint8).reshape(frame.count, layout.sample_bytes)


def decode_tokens(data: bytes, layout: TokenLayout) -> npt.NDArray[np.unsignedinteger]:
    """Open a tokens frame: ids (N, H, W), uint16 or uint32."""
    packed_NS = decode_packed(data, layout)
    tokens_NL = unpack(packed_NS, length=layout.length, num_codes=layout.num_codes)
    return tokens_NL.reshape(-1, *layout.grid)


def decode_labels(data: bytes) -> npt.NDArray[np.int32]:
    """Open a labels frame: int32 (N,), −1 for an unlabelled sample."""
    frame = decode_frame(data, kind=Kind.LABELS)
    if len(frame.raw) != 4 * frame.count:
        raise DamagedError(f"{frame.count} labels do not take {len(frame.raw)} bytes")
    return np.frombuffer(frame.raw, dtype="<i4").astype(np.int32, copy=False)


def decode_keys(data: bytes) -> tuple[str, ...]:
    """Open a keys frame: N strings."""
    frame = decode_frame(data, kind=Kind.KEYS)
    return _decode_strings(frame.raw, frame.count)


def decode_metadata(data: bytes) -> tuple[dict[str, Any], ...]:
    """Open a metadata frame: N mappings."""
    frame = decode_frame(data, kind=Kind.METADATA)
    try:
        entries = tuple(parse_json(text) for text in _decode_strings(frame.raw, frame.count))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"metadata are not JSON: {error}") from error
    if not all(isinstance(entry, dict) for entry in entries):
        raise DamagedError("metadata hold something else than one JSON object a sample")
    return entries


def parse_json(text: str) -> Any:
    """Parse JSON as other languages do: NaN and infinities are a ValueError."""
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _encode_strings(strings: tuple[str, ...]) -> bytes:
    coded = [text.encode() for text in strings]
    lengths = np.array([len(text) for text in coded], dtype="<u4")
    return lengths.tobytes() + b"".join(coded)


def _decode_strings(raw: bytes, count: int) -> tuple[str, ...]:
    if len(raw) < 4 * count:
        raise DamagedError(f"{len(raw)} bytes cannot hold the lengths of {count} strings")
    ends = np.cumsum(np.frombuffer(raw, dtype="<u4", count=count), dtype=np.int64) + 4 * count
    bounds = [4 * count, *ends.tolist()]
    if bounds[-1] != len(raw):
        raise DamagedError("the string lengths of a frame do not add up to its size")
    try:
        return tuple(raw[start:end].decode() for start, end in pairwise(bounds))
    except UnicodeDecodeError as error:
        raise DamagedError(f"a frame's strings are not UTF-8: {error}") from error
