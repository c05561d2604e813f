import re
import struct
import tracemalloc
import zlib
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from seit.errors import DamagedError, SeitError
from seit.shards import Block, PackedCodec, TokenLayout
from seit.shards.blocks import (
    decode_keys,
    decode_labels,
    decode_metadata,
    encode_block,
)
from seit.shards.frames import MAX_COUNT, MAX_RAW_BYTES, Coding, Kind, decode_frame, encode_frame
from seit.shards.index import decode_index, encode_index

FORMAT = Path(__file__).parents[2] / "shards" / "FORMAT.md"
CODEC = PackedCodec(TokenLayout(grid=(1, 5), num_codes=1000))
BLOCK = Block(
    tokens=np.array([[[1, 515, 999, 256, 7]]], dtype=np.uint16),
    labels=np.array([4], dtype=np.int32),
    keys=("cat/é.jpg",),
    metadata=({"a": 1},),
)
DECODERS = {
    Kind.TOKENS: CODEC.decode,
    Kind.LABELS: decode_labels,
    Kind.KEYS: decode_keys,
    Kind.METADATA: decode_metadata,
    Kind.INDEX: decode_index,
}
FRAMES = {**encode_block(BLOCK, CODEC), Kind.INDEX: encode_index(np.array([[31, 36, 46, 43]]))}


def crc32c(data):
    """CRC-32C bit by bit (reversed polynomial 0x82F63B78)."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def frame(
    payload=b"", *, magic=b"SEIT", version=1, kind=None, coding=0, reserved=0, count=0, raw=None
):
    """A frame with a right checksum; its kind is keys if it is deflated, else tokens."""
    kind = kind or (Kind.KEYS if coding == Coding.DEFLATE else Kind.TOKENS)
    raw = len(payload) if raw is None else raw
    head = struct.pack("<4sBBBBIQ", magic, version, kind, coding, reserved, count, raw) + payload
    return head + struct.pack("<I", google_crc32c.value(head))


def strings(*texts):
    return struct.pack(f"<{len(texts)}I", *map(len, texts)) + b"".join(texts)


def test_the_example_of_the_specification():
    text = FORMAT.read_text()
    for kind, data in FRAMES.items():
        match = re.search(rf"^{kind.name.lower()} +((?:[0-9a-f]{{2}} ?)+)$", text, re.MULTILINE)
        example = bytes.fromhex(match[1])
        column = DECODERS[kind](example)
        assert np.array_equal(column, DECODERS[kind](data))
        assert example[-4:] == struct.pack("<I", crc32c(example[:-4]))
        if kind in (Kind.TOKENS, Kind.INDEX):
            assert example == data
    np.testing.assert_array_equal(CODEC.decode(FRAMES[Kind.TOKENS]), BLOCK.tokens)
    assert decode_labels(encode_block(BLOCK, CODEC)[Kind.LABELS]).tolist() == [4]
    assert decode_keys(encode_block(BLOCK, CODEC)[Kind.KEYS]) == BLOCK.keys
    assert decode_metadata(encode_block(BLOCK, CODEC)[Kind.METADATA]) == BLOCK.metadata


@pytest.mark.parametrize("kind", Kind)
def test_every_changed_byte_is_found(kind):
    data = FRAMES[kind]
    for place in range(len(data)):
        for change in range(1, 256):
            damaged = bytearray(data)
            damaged[place] ^= change
            with pytest.raises(DamagedError):
                decode_frame(bytes(damaged), kind=kind)


@pytest.mark.parametrize("kind", Kind)
def test_every_truncation_and_addition_is_found(kind):
    data = FRAMES[kind]
    for size in range(len(data)):
        with pytest.raises(DamagedError):
            decode_frame(data[:size], kind=kind)
        with pytest.raises(DamagedError):
            decode_frame(data[size + 1 :], kind=kind)
    for byte in range(256):
        with pytest.raises(DamagedError):
            decode_frame(data + bytes([byte]), kind=kind)


@pytest.mark.parametrize("coding", [Coding.RAW, Coding.DEFLATE])
@pytest.mark.parametrize("raw", [b"", b"\0", bytes(100_000), bytes(range(256)) * 40])
def test_payloads_come_back(coding, raw):
    data = encode_frame(Kind.KEYS, raw, count=3, coding=coding)
    found = decode_frame(data, kind=Kind.KEYS)
    assert (found.kind, found.count, found.raw) == (Kind.KEYS, 3, raw)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(magic=b"ZEIT"), "begins with"),
        (frame(version=2), "version 2 is unknown"),
        (frame(kind=2), "kind 2; expected tokens"),
        (frame(kind=9), "kind 9; expected tokens"),
        (frame(coding=3), "coding 3"),
        (frame(reserved=1), "flags 1"),
        (frame(count=MAX_COUNT + 1), "over the limits"),
        (frame(raw=MAX_RAW_BYTES + 1), "over the limits"),
        (frame(raw=2**64 - 1), "over the limits"),
        (frame(b"abc", raw=4), "holds 3 bytes but claims 4"),
        (frame(b"abc", raw=2), "holds 3 bytes but claims 2"),
        (frame(b"abc", coding=1), "does not inflate"),
        (frame(b"", coding=1, raw=1), "cannot unfold"),
        (frame(zlib.compress(b"abc"), coding=1, raw=2), "inflates to 3 bytes where it claims 2"),
        (frame(zlib.compress(b"abc"), coding=1, raw=4), "inflates to 3 bytes where it claims 4"),
        (frame(zlib.compress(b"abc")[:-1], coding=1, raw=3), "inflates to"),
        (frame(zlib.compress(b"abc") + b"d", coding=1, raw=3), "inflates to"),
        (frame(zlib.compress(b"abc") * 2, coding=1, raw=3), "inflates to"),
    ],
)
def test_sealed_nonsense_is_named(data, reason):
    with pytest.raises(DamagedError, match=reason):
        decode_frame(data, kind=Kind.KEYS if data[6] == Coding.DEFLATE else Kind.TOKENS)


@pytest.mark.parametrize(
    "data",
    [
        frame(bytes(range(200)), coding=1, raw=MAX_RAW_BYTES),
        frame(zlib.compress(bytes(1 << 26), 9), coding=1, raw=1000),
        frame(zlib.compress(bytes(1 << 26), 9), coding=1, raw=0),
        frame(raw=MAX_RAW_BYTES, count=MAX_COUNT),
        frame(bytes(64), raw=2**63, count=2**32 - 1),
    ],
    ids=["claims much", "bomb", "bomb that claims nothing", "empty", "huge"],
)
def test_hostile_sizes_reserve_no_memory(data):
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError):
            decode_frame(data, kind=Kind.KEYS if data[6] == Coding.DEFLATE else Kind.TOKENS)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(data) + 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("kind", "payload", "count"),
    [
        (Kind.TOKENS, bytes(7), 2),
        (Kind.TOKENS, bytes(8), 1),
        (Kind.TOKENS, b"\xff" * 7, 1),
        (Kind.LABELS, bytes(7), 2),
        (Kind.LABELS, bytes(4), 0),
        (Kind.KEYS, b"x", 0),
        (Kind.KEYS, bytes(3), 1),
        (Kind.KEYS, strings(b"ab") + b"c", 1),
        (Kind.KEYS, strings(b"\xff"), 1),
        (Kind.KEYS, struct.pack("<2I", 2**32 - 1, 3) + b"xx", 2),
        (Kind.METADATA, strings(b"[]"), 1),
        (Kind.METADATA, strings(b"{"), 1),
        (Kind.METADATA, strings(b'{"a":NaN}'), 1),
        (Kind.METADATA, strings(b'{"a":[1e999]}'), 1),
        (Kind.METADATA, strings(b'{"a":"x\\ud800y"}'), 1),
        (Kind.METADATA, strings(b'{"a":' + b"[" * 100_000), 1),
        (Kind.METADATA, strings(b'{"a":' + b"1" * 100_000 + b"}"), 1),
        (Kind.INDEX, bytes(15), 1),
        (Kind.INDEX, bytes(16), 2),
    ],
)
def test_sealed_payloads_of_the_wrong_form(kind, payload, count):
    with pytest.raises(DamagedError):
        DECODERS[kind](frame(payload, kind=kind, count=count))


def test_blocks_of_no_samples_can_be_read():
    assert CODEC.decode(frame()).shape == (0, 1, 5)
    assert decode_labels(frame(kind=2)).shape == (0,)
    assert decode_keys(frame(kind=3)) == ()
    assert decode_metadata(frame(kind=4)) == ()
    assert decode_index(frame(kind=5)).shape == (0, 4)


def test_a_block_of_too_many_tokens_is_refused():
    layout = TokenLayout(grid=(1 << 14, 1 << 14), num_codes=2)
    data = frame(bytes(2 * layout.sample_bytes), count=2)
    with pytest.raises(DamagedError, match="over the limits"):
        PackedCodec(layout).decode(data)


def test_the_writer_refuses_what_no_reader_takes():
    with pytest.raises(SeitError, match="at most 65536 samples"):
        encode_frame(Kind.KEYS, b"", count=MAX_COUNT + 1, coding=Coding.RAW)
    with pytest.raises(SeitError, match="write fewer samples per block"):
        encode_frame(Kind.KEYS, bytes(MAX_RAW_BYTES + 1), count=1, coding=Coding.RAW)


def test_the_writer_refuses_ids_that_are_no_codes():
    tokens = np.full((1, 1, 5), 1000, dtype=np.uint16)
    with pytest.raises(AssertionError, match="not below K"):
        encode_block(Block(tokens, BLOCK.labels, BLOCK.keys), CODEC)


@given(st.binary(max_size=80), st.sampled_from(Kind))
@settings(deadline=None)
def test_any_bytes_are_damage(data, kind):
    with pytest.raises(DamagedError):
        DECODERS[kind](data)


@given(
    payload=st.binary(max_size=60),
    kind=st.sampled_from(Kind),
    coding=st.integers(0, 2),
    count=st.integers(0, 20),
    deflated=st.booleans(),
    lie=st.none() | st.integers(0, 2**64 - 1),
)
@settings(max_examples=400, deadline=None)
def test_sealed_bytes_decode_or_are_damage(payload, kind, coding, count, deflated, lie):
    raw = len(payload) if lie is None else lie
    coded = zlib.compress(payload) if deflated else payload
    data = frame(coded, kind=kind, coding=coding, count=count, raw=raw)
    try:
        column = DECODERS[kind](data)
    except DamagedError:
        return
    assert len(column) == count


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(st.data(), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_blocks_come_back(data, count):
    labels = data.draw(st.lists(st.integers(-1, 2**31 - 1), min_size=count, max_size=count))
    ids = data.draw(st.lists(st.integers(0, 999), min_size=5 * count, max_size=5 * count))
    block = Block(
        tokens=np.array(ids, dtype=np.uint16).reshape(count, 1, 5),
        labels=np.array(labels, dtype=np.int32),
        keys=tuple(data.draw(st.lists(texts, min_size=count, max_size=count))),
        metadata=tuple(
            data.draw(
                st.lists(st.dictionaries(texts, values, max_size=2), min_size=count, max_size=count)
            )
        ),
    )
    frames = encode_block(block, CODEC)
    np.testing.assert_array_equal(CODEC.decode(frames[Kind.TOKENS]), block.tokens)
    assert decode_labels(frames[Kind.LABELS]).tolist() == labels
    assert decode_keys(frames[Kind.KEYS]) == block.keys
    assert decode_metadata(frames[Kind.METADATA]) == block.metadata
