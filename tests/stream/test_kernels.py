"""The Triton programs, run by Triton's interpreter, and on a CUDA device where there is one."""

import importlib
import logging
import sys
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from support.context import random_tables, random_tokens, smooth_tokens, streams
from support.triton_programs import CPU, CUDA, DEVICES, STREAM, compile_for_cuda, programs

import seit.stream
from seit.devices import triton_serves
from seit.errors import UsageError
from seit.shards.context import reference
from seit.shards.context.coder import Coder
from seit.shards.packed import sample_bytes, token_bits
from seit.stream import unpack
from seit.stream.kernels import (
    ContextDecoder,
    DeviceTables,
    decode_context_triton,
    unpack_triton,
)


@pytest.fixture(scope="module", params=DEVICES)
def device(request):
    with programs(interpret=request.param == "interpreter"):
        yield CPU if request.param == "interpreter" else torch.device("cuda")


def random_bytes(count, length, num_codes, seed=0):
    rng = np.random.default_rng(seed)
    size = sample_bytes(length, token_bits(num_codes))
    return torch.from_numpy(rng.integers(256, size=(count, size), dtype=np.uint8))


@pytest.mark.parametrize("length", [1, 5, 8, 1024])
@pytest.mark.parametrize("num_codes", [2, 3, 16, 391, 1000, 4096, 8192, 32768, 65537])
def test_unpacks_like_torch(device, num_codes, length):
    packed_NS = random_bytes(7, length, num_codes)
    rows = torch.tensor([6, 0, 0, 3])
    for chosen in (None, rows):
        expected = unpack(
            packed_NS if chosen is None else packed_NS[chosen], length=length, num_codes=num_codes
        )
        found = unpack_triton(
            packed_NS.to(device),
            length=length,
            num_codes=num_codes,
            rows=None if chosen is None else chosen.to(device),
        )
        assert found.dtype == expected.dtype
        assert torch.equal(found.cpu(), expected)


def test_a_sample_may_take_several_programs(device):
    packed_NS = random_bytes(3, 2500, 1000)
    rows = torch.tensor([2, 1])
    found = unpack_triton(packed_NS.to(device), length=2500, num_codes=1000, rows=rows.to(device))
    assert torch.equal(found.cpu(), unpack(packed_NS[rows], length=2500, num_codes=1000))


def test_every_other_sample_of_a_tensor(device):
    packed_NS = random_bytes(8, 6, 40).to(device)[::2]
    found = unpack_triton(packed_NS, length=6, num_codes=40)
    assert torch.equal(found, unpack(packed_NS, length=6, num_codes=40))


def test_rows_that_are_not_there_read_as_zeros(device):
    packed_NS = torch.full((2, 5), 255, dtype=torch.uint8, device=device)
    rows = torch.tensor([-1, 1, 2, 1 << 40], device=device)
    found = unpack_triton(packed_NS, length=5, num_codes=256, rows=rows)
    assert found.tolist() == [[0] * 5, [255] * 5, [0] * 5, [0] * 5]


def test_no_rows_are_no_ids(device):
    none = torch.empty(0, dtype=torch.int64, device=device)
    packed_NS = random_bytes(2, 6, 40).to(device)
    assert unpack_triton(packed_NS, length=6, num_codes=40, rows=none).shape == (0, 6)


@pytest.mark.parametrize("wrong", [torch.zeros(2, 5), torch.zeros(2, 4, dtype=torch.uint8)])
def test_other_tensors_are_refused(device, wrong):
    with pytest.raises(UsageError, match=r"torch.uint8 \(N, 5\)"):
        unpack_triton(wrong.to(device), length=5, num_codes=256)


@cache
def tables_of(num_codes, spread=20):
    return random_tables(num_codes, spread=spread)


def decode(device, words, bounds, grid, tables):
    ids, whole = decode_context_triton(
        torch.from_numpy(words.view(np.int16)).to(device),
        torch.from_numpy(bounds).to(device),
        grid,
        DeviceTables.from_tables(tables, device),
    )
    assert ids.dtype == torch.int16
    return ids.cpu().numpy().view(np.uint16), whole.cpu().numpy()


def assert_decodes_like_the_reference(device, words, bounds, grid, tables):
    found, whole = decode(device, words, bounds, grid, tables)
    expected, expected_whole = reference.decode(words, bounds, grid, tables)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(whole, expected_whole)


def encode(tokens, tables):
    words, sizes = Coder(tables).encode(tokens.reshape(len(tokens), -1), tokens.shape[1:])
    return words, streams(words, sizes)


@pytest.mark.parametrize(
    ("num_codes", "count", "grid"),
    [
        (2, 17, (8, 8)),
        (33, 3, (3, 5)),
        (33, 70, (3, 1)),
        (33, 3, (1, 4)),
        (391, 17, (4, 4)),
        (1024, 1, (3, 5)),
        (4096, 3, (2, 3)),
    ],
)
def test_decodes_what_was_coded(device, num_codes, count, grid):
    tables = tables_of(num_codes)
    tokens = smooth_tokens(num_codes, count, grid)
    words, bounds = encode(tokens, tables)
    found, whole = decode(device, words, bounds, grid, tables)
    np.testing.assert_array_equal(found, tokens)
    assert whole.all()


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_any_words_decode_as_in_the_reference(device, data):
    tables = tables_of(data.draw(st.sampled_from([2, 5, 40, 391])), spread=90)
    sizes = data.draw(st.lists(st.integers(2, 12), min_size=1, max_size=5))
    word = st.one_of(st.integers(0, 2**16 - 1), st.sampled_from([0, 0x7FFF, 0x8000, 0xFFFF]))
    words = np.array(
        data.draw(st.lists(word, min_size=sum(sizes), max_size=sum(sizes))), dtype=np.uint16
    )
    assert_decodes_like_the_reference(device, words, streams(words, sizes), (2, 2), tables)


@pytest.mark.parametrize("num_codes", [2, 391, 4096])
def test_the_greatest_states(device, num_codes):
    words = np.full(60, 0xFFFF, dtype=np.uint16)
    bounds = streams(words, [2, 3, 55])
    assert_decodes_like_the_reference(device, words, bounds, (2, 2), tables_of(num_codes))


def test_weights_that_push_scores_beyond_the_squash(device):
    tables = random_tables(40, spread=127)
    words, bounds = encode(random_tokens(40, 5, (3, 3)), tables)
    assert_decodes_like_the_reference(device, words, bounds, (3, 3), tables)


def test_bounds_outside_the_words_are_not_whole(device):
    tables, far = tables_of(33), 1 << 62
    tokens = smooth_tokens(33, 2, (3, 3))
    words, bounds = encode(tokens, tables)
    wrong = [
        [-far, 4], [-2, 4], [0, far], [far, far + 9], [len(words), len(words) + 2],
        [len(words) - 2, len(words) + 1], [5, 5], [5, 6], [6, 5], [far, -far], [-far, far],
    ]  # fmt: skip
    mixed = np.array([bounds[0], *wrong, bounds[1]], dtype=np.int64)
    found, whole = decode(device, words, mixed, (3, 3), tables)
    np.testing.assert_array_equal(found[[0, -1]], tokens)
    assert whole.tolist() == [True, *[False] * len(wrong), True]


def test_a_lane_starts_each_row_afresh(device):
    """Streams of one block decode alike wherever they stand in it."""
    tables = tables_of(33)
    tokens = random_tokens(33, 40, (4, 3))
    words, bounds = encode(tokens, tables)
    order = np.random.default_rng(0).permutation(40)
    found, whole = decode(device, words, bounds[order], (4, 3), tables)
    np.testing.assert_array_equal(found, tokens[order])
    assert whole.all()


def test_no_streams_are_no_ids(device):
    words, bounds = np.zeros(0, dtype=np.uint16), np.zeros((0, 2), dtype=np.int64)
    found, whole = decode(device, words, bounds, (3, 5), tables_of(33))
    assert found.shape == (0, 3, 5)
    assert whole.shape == (0,)


@pytest.mark.parametrize("device", [CUDA], indirect=True)
def test_many_samples(device):
    tables = tables_of(1024)
    tokens = smooth_tokens(1024, 3000, (16, 16))
    words, bounds = encode(tokens, tables)
    found, whole = decode(device, words, bounds, (16, 16), tables)
    np.testing.assert_array_equal(found, tokens)
    assert whole.all()


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint16])
def test_a_decoder_serves_each_device(device, dtype):
    tables, tokens = tables_of(391), smooth_tokens(391, 6, (4, 5))
    words, bounds = encode(tokens, tables)
    decoder = ContextDecoder(tables, device=device)
    ids, whole = decoder.decode(
        torch.from_numpy(words).view(dtype), torch.from_numpy(bounds), (4, 5)
    )
    assert ids.dtype == torch.int16
    assert ids.device.type == whole.device.type == device.type
    np.testing.assert_array_equal(ids.cpu().numpy(), tokens)
    assert whole.dtype == torch.bool
    assert whole.all()


@pytest.fixture
def no_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "seit.triton_probe", raising=False)
    triton_serves.cache_clear()
    yield
    triton_serves.cache_clear()


def test_a_device_without_triton_is_said_once(no_triton, caplog):
    with caplog.at_level(logging.WARNING):
        assert not any(triton_serves(torch.device("cuda")) for _ in range(3))
    assert [record.getMessage() for record in caplog.records] == [
        "cuda does without Triton, which is slower: import of triton halted; None in sys.modules"
    ]


def test_the_processor_is_not_served(no_triton, caplog):
    assert not triton_serves(CPU)
    assert not caplog.records


def test_triton_is_imported_late(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    for name in [name for name in sys.modules if name.startswith("seit.stream.kernels")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(seit.stream, "kernels", None)
    assert importlib.import_module("seit.stream.kernels").unpack_triton


SIGNATURES = {
    "unpack_program": {
        "packed": "*u8", "rows": "*i64", "tokens": "*i16", "num_rows": "i32", "length": "i32",
        "stride": "i32", "PLANES": ((0, 8, 0), (8, 2, 1024)), "BLOCK": 1024,
    },
    "decode_program": {
        "words": "*i16", "bounds": "*i64", "ids": "*i16", "whole": "*i8", "weights": "*i8",
        "corner": "*i8", "squash": "*i16", "codes": "*i16", "count": "i32", "num_words": "i64",
        "height": "i32", "width": "i32", "num_codes": "i32", "row_size": "i32",
        "LEVELS": (5, 4), "MOST_LEVELS": 5,
        "BASES": (0, 32), "BLOCK": 32,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNATURES)
def test_programs_compile_for_cuda(name, tmp_path, monkeypatch):
    """The interpreter knows no types; the compiler, which needs no device, does."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    with programs(interpret=False) as modules:
        program = getattr(modules[STREAM], name)
        compiled = compile_for_cuda(program, SIGNATURES[name], capability=80, fuses=True)
    assert compiled.asm["cubin"]
