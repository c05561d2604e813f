"""Blocks: up to 1,024 samples coded together, the unit of checksum and random access.

Legend: N samples of the block, H W grid.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError
from seit.shards.codecs import Codec, TokenLayout
from seit.shards.frames import Coding, Kind, decode_frame, encode_frame

BLOCK_SAMPLES = 1024
"""Samples per block; only the last block of a shard may hold fewer."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

MEMBER_SUFFIXES = {
    Kind.TOKENS: "tokens",
    Kind.LABELS: "labels",
    Kind.KEYS: "keys",
    Kind.METADATA: "metadata",
}


@dataclass(frozen=True)
class Block:
    """Samples before coding: ids (N, H, W), labels int32 (N,) with −1 for none, N keys.

    ``metadata`` is one JSON-serializable mapping per sample, or None if no sample has any.
    """

    tokens: npt.NDArray[np.unsignedinteger]
    labels: npt.NDArray[np.int32]
    keys: tuple[str, ...]
    metadata: tuple[Mapping[str, Any], ...] | None = None


def assert_fits(block: Block, layout: TokenLayout) -> None:
    """Assert that a block has ids of this layout, and one label, key and mapping per sample."""
    count = len(block.keys)
    assert block.tokens.shape == (count, *layout.grid), "tokens do not fit the layout"
    assert block.labels.shape == (count,), "one label a sample"
    assert block.metadata is None or len(block.metadata) == count, "one mapping a sample"
    assert int(block.tokens.max(initial=0)) < layout.num_codes, "an id is not below K"


def encode_block(block: Block, codec: Codec) -> dict[Kind, bytes]:
    """Encode a block into its frames, by kind.

    Raises:
        SeitError: the block is too large for any reader.
    """
    assert_fits(block, codec.layout)
    count = len(block.keys)
    frames = {
        Kind.TOKENS: codec.encode(block.tokens),
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
        raw = _encode_strings(metadata_texts(block.metadata))
        frames[Kind.METADATA] = encode_frame(Kind.METADATA, raw, count=count, coding=Coding.DEFLATE)
    return frames


def decode_labels(data: bytes) -> npt.NDArray[np.int32]:
    """Decode a labels frame: int32 (N,), −1 for an unlabeled sample."""
    frame = decode_frame(data, kind=Kind.LABELS)
    if len(frame.raw) != 4 * frame.count:
        raise DamagedError(f"{frame.count} labels do not take {len(frame.raw)} bytes")
    return np.frombuffer(frame.raw, dtype="<i4").astype(np.int32, copy=False)


def decode_keys(data: bytes) -> tuple[str, ...]:
    """Decode a keys frame: N strings."""
    frame = decode_frame(data, kind=Kind.KEYS)
    return _decode_strings(frame.raw, frame.count)


def decode_metadata(data: bytes) -> tuple[dict[str, Any], ...]:
    """Decode a metadata frame: N mappings."""
    frame = decode_frame(data, kind=Kind.METADATA)
    return parse_metadata(_decode_strings(frame.raw, frame.count))


def metadata_texts(metadata: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return metadata as canonical JSON, one text per sample."""
    return tuple(
        json.dumps(
            entry, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
        )
        for entry in metadata
    )


def parse_metadata(texts: Iterable[str]) -> tuple[dict[str, Any], ...]:
    """Parse the texts of metadata: one mapping per sample.

    Raises:
        DamagedError: a text is not a JSON object.
    """
    try:
        entries = tuple(parse_json(text) for text in texts)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"metadata are not JSON: {error}") from error
    if not all(isinstance(entry, dict) for entry in entries):
        raise DamagedError("metadata hold something other than one JSON object per sample")
    return entries


def parse_json(text: str) -> Any:
    """Parse strict JSON: NaN, infinities and lone surrogates raise ValueError."""
    value = json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_finite)
    if _SURROGATE.search(text):
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _parse_finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is no finite number")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


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
