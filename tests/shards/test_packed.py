import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from seit.errors import DamagedError
from seit.shards import TokenLayout
from seit.shards.packed import pack, planes, sample_bytes, token_bits, unpack, unpack_reference
from seit.stream import unpack as unpack_torch

SIZES = [
    *(2, 3, 4, 5, 16, 17, 127, 128, 129, 255, 256, 257, 391, 512, 1000, 1024, 4096, 8192),
    *(16_384, 32_767, 32_768, 32_769, 65_535, 65_536, 65_537, 1 << 20, (1 << 24) + 1, 1 << 31),
]
LENGTHS = [1, 2, 3, 7, 8, 9, 31, 64, 1023]


def random_ids(num_codes, *shape, seed=0):
    ids = np.random.default_rng(seed).integers(num_codes, size=shape)
    ids.flat[0] = num_codes - 1
    return ids.astype(TokenLayout((1, 1), num_codes).dtype)


def read_by_the_specification(data, length, num_codes):
    """Section 5 of FORMAT.md in plain integers: one bit at a time."""
    bits = 1
    while 2**bits < num_codes:
        bits += 1
    ids, shift, offset = [0] * length, 0, 0
    while shift < bits:
        width = next(width for width in (8, 4, 2, 1) if width <= bits - shift)
        for token in range(length):
            for bit in range(width):
                place = token * width + bit
                value = data[offset + place // 8] >> (place % 8) & 1
                ids[token] |= value << (shift + bit)
        offset += -(-length * width // 8)
        shift += width
    assert offset == len(data)
    return ids


@pytest.mark.parametrize("num_codes", SIZES)
def test_packed_ids_come_back(num_codes):
    for length in LENGTHS:
        ids = random_ids(num_codes, 3, length, seed=length)
        packed = pack(ids, token_bits(num_codes))
        assert packed.shape == (3, sample_bytes(length, token_bits(num_codes)))
        read = unpack(packed, length=length, num_codes=num_codes)
        assert read.dtype == (np.uint16 if num_codes <= 65_536 else np.uint32)
        np.testing.assert_array_equal(read, ids)


@pytest.mark.parametrize("num_codes", SIZES)
def test_an_independent_reader_agrees(num_codes):
    for length in (1, 5, 33):
        ids = random_ids(num_codes, 2, length, seed=length)
        packed = pack(ids, token_bits(num_codes))
        for row, expected in zip(packed, ids, strict=True):
            found = read_by_the_specification(row.tobytes(), length, num_codes)
            assert found == expected.tolist()


@pytest.mark.parametrize("num_codes", SIZES)
def test_torch_reads_the_same(num_codes):
    for length in LENGTHS:
        ids = random_ids(num_codes, 4, length, seed=length)
        packed = torch.from_numpy(pack(ids, token_bits(num_codes)))
        read = unpack_torch(packed, length=length, num_codes=num_codes)
        assert read.dtype == (torch.int16 if num_codes <= 32_768 else torch.int32)
        np.testing.assert_array_equal(read.numpy(), ids.astype(np.int64))


@given(
    num_codes=st.one_of(st.integers(2, 1 << 31), st.sampled_from(SIZES)),
    count=st.integers(0, 4),
    length=st.integers(1, 70),
    seed=st.integers(0, 1 << 30),
)
@settings(max_examples=150, deadline=None)
def test_any_ids_come_back(num_codes, count, length, seed):
    ids = np.random.default_rng(seed).integers(num_codes, size=(count, length))
    ids = ids.astype(TokenLayout((1, 1), num_codes).dtype)
    packed = pack(ids, token_bits(num_codes))
    np.testing.assert_array_equal(unpack(packed, length=length, num_codes=num_codes), ids)
    for row, expected in zip(packed, ids, strict=True):
        assert read_by_the_specification(row.tobytes(), length, num_codes) == expected.tolist()


@pytest.mark.parametrize("num_codes", [3, 129, 255, 257, 391, 1000, 65_537])
def test_ids_that_are_no_codes_are_found(num_codes):
    ids = random_ids(num_codes, 2, 9)
    ids[1, 8] = num_codes
    packed = pack(ids, token_bits(num_codes))
    with pytest.raises(DamagedError, match=f"token id {num_codes} where ids are below {num_codes}"):
        unpack(packed, length=9, num_codes=num_codes)


def test_rows_of_another_length_are_refused():
    packed = pack(random_ids(1000, 2, 8), 10)
    with pytest.raises(DamagedError, match="has 10 bytes where 9 tokens of 10 bits take 12"):
        unpack(packed, length=9, num_codes=1000)


def test_bits_behind_the_last_token_are_ignored():
    ids = random_ids(1000, 1, 5)
    packed = pack(ids, 10)
    packed[0, -1] |= 0b1111_1100
    np.testing.assert_array_equal(unpack(packed, length=5, num_codes=1000), ids)


@pytest.mark.parametrize(
    ("num_codes", "widths", "size"),
    [
        (2, [1], 128),
        (256, [8], 1024),
        (391, [8, 1], 1152),
        (1000, [8, 2], 1280),
        (4096, [8, 4], 1536),
        (8192, [8, 4, 1], 1664),
        (32_768, [8, 4, 2, 1], 1920),
        (65_537, [8, 8, 1], 2176),
    ],
)
def test_the_table_of_the_specification(num_codes, widths, size):
    bits = token_bits(num_codes)
    assert [width for _, width in planes(bits)] == widths
    assert sample_bytes(1024, bits) == size


@pytest.mark.parametrize("num_codes", SIZES)
@pytest.mark.parametrize("length", [1, 7, 64, 1023])
def test_compiled_unpacking_equals_the_reference(num_codes, length):
    ids = random_ids(num_codes, (1 << 15) // length + 1, length)
    packed = pack(ids, token_bits(num_codes))
    found = unpack(packed, length=length, num_codes=num_codes)
    expected = unpack_reference(packed, length=length, num_codes=num_codes)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found, ids)
    assert found.dtype == expected.dtype


def test_compiled_unpacking_finds_an_id_that_is_no_code():
    ids = random_ids(1000, 40, 1024)
    ids[-1, -1] = 1001
    with pytest.raises(DamagedError, match="id 1001 where ids are below 1000"):
        unpack(pack(ids, 10), length=1024, num_codes=1000)
