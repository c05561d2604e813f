import lzma
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from support.context import random_tables, random_tokens, smooth_tokens, streams

from seit.errors import DamagedError, UsageError
from seit.shards.codec_registry import build_codec
from seit.shards.codecs import PackedCodec, TokenLayout
from seit.shards.context import ContextCodec, ContextTables, reference
from seit.shards.context.coder import Coder
from seit.shards.context.fit import fit_tables
from seit.shards.context.tables import make_squash
from seit.shards.context.tree import TreeShape, grow_tree
from seit.shards.frames import Coding, Kind, decode_frame, seal_frame

SIZES = [2, 3, 16, 31, 32, 33, 391, 1000, 1024, 4096]
GRIDS = [(1, 1), (1, 7), (7, 1), (3, 5), (8, 8)]


def decode_by_the_letter(words, grid, tables):
    """One stream, written from the specification alone, in Python's integers."""
    num_codes = tables.num_codes
    depth = max(1, (num_codes - 1).bit_length())
    levels = [5] * (depth // 5) + ([depth % 5] if depth % 5 else [])
    code_of = {int(path): code for code, path in enumerate(tables.paths)}
    height, width = grid
    ids = [[num_codes] * width for _ in range(height)]
    state, position = (int(words[0]) << 16) | int(words[1]), 2
    for y in range(height):
        for x in range(width):
            left = ids[y][x - 1] if x else num_codes
            upper = ids[y - 1][x] if y else num_codes
            upper_right = ids[y - 1][x + 1] if y and x + 1 < width else num_codes
            leaf, base, done = 0, 0, 0
            for group in levels:
                start = base + leaf * 2**group
                entry, low, size, leaves = 1, 0, 2**15, 2**group
                slot = state % 2**15
                while leaves > 1:
                    node = start + entry
                    folded = int(tables.weights[1, upper, node]) + int(tables.bias[node])
                    score = max(-128, min(127, folded))
                    score += int(tables.weights[0, left, node])
                    if done == 0:
                        score += int(tables.corner[upper_right, node])
                    probability = int(tables.squash[max(-96, min(96, score)) + 96])
                    left_size = leaves // 2 + (size - leaves) * probability // 2**15
                    if slot < low + left_size:
                        size, entry = left_size, 2 * entry
                    else:
                        low, size, entry = low + left_size, size - left_size, 2 * entry + 1
                    leaves //= 2
                state = size * (state // 2**15) + slot - low
                if state < 2**16 and position < len(words):
                    state, position = state * 2**16 + int(words[position]), position + 1
                done += group
                base += 2**done
                leaf = leaf * 2**group + entry - 2**group
            ids[y][x] = code_of.get(leaf, num_codes)
    return ids, state == 0 and position == len(words)


@pytest.mark.parametrize("num_codes", SIZES)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("make", [smooth_tokens, random_tokens])
def test_any_tables_code_any_ids(num_codes, grid, make):
    tables = random_tables(num_codes)
    tokens = make(num_codes, 6, grid)
    words, sizes = Coder(tables).encode(tokens.reshape(6, -1), grid)
    bounds = streams(words, sizes)
    for decode in (Coder(tables).decode, lambda *args: reference.decode(*args, tables)):
        found, whole = decode(words, bounds, grid)
        np.testing.assert_array_equal(found, tokens)
        assert whole.all()


@pytest.mark.parametrize("num_codes", [2, 33, 391, 1024])
def test_a_decoder_written_from_the_specification_agrees(num_codes):
    tables = random_tables(num_codes, seed=1, spread=127)
    tokens = smooth_tokens(num_codes, 3, (4, 5))
    words, sizes = Coder(tables).encode(tokens.reshape(3, -1), (4, 5))
    for (start, end), expected in zip(streams(words, sizes), tokens, strict=True):
        ids, whole = decode_by_the_letter(words[start:end], (4, 5), tables)
        assert ids == expected.tolist()
        assert whole


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_words_decode_to_the_same_in_every_decoder(data):
    num_codes = data.draw(st.sampled_from([2, 5, 40, 391]))
    tables = random_tables(num_codes, seed=data.draw(st.integers(0, 3)), spread=90)
    sizes = np.array(data.draw(st.lists(st.integers(2, 12), min_size=1, max_size=5)))
    word, total = st.integers(0, 2**16 - 1), int(sizes.sum())
    drawn = data.draw(st.lists(word, min_size=total, max_size=total))
    words, bounds = np.array(drawn, dtype=np.uint16), streams(drawn, sizes)
    found, whole = Coder(tables).decode(words, bounds, (2, 3))
    again, whole_again = reference.decode(words, bounds, (2, 3), tables)
    np.testing.assert_array_equal(found, again)
    np.testing.assert_array_equal(whole, whole_again)
    for row, (start, end) in enumerate(bounds):
        ids, is_whole = decode_by_the_letter(words[start:end], (2, 3), tables)
        assert ids == found[row].tolist()
        assert is_whole == whole[row]


@pytest.mark.parametrize("num_codes", SIZES)
def test_group_trees_tile_the_row(num_codes):
    shape = TreeShape(num_codes)
    assert sum(shape.levels) == shape.depth
    assert shape.num_leaves >= num_codes > shape.num_leaves // 2 or num_codes == 2
    entries, depth = [], 0
    for base, levels in zip(shape.bases, shape.levels, strict=True):
        for prefix in range(1 << depth):
            entries += range(base + (prefix << levels), base + ((prefix + 1) << levels))
        depth += levels
    assert entries == list(range(shape.row_size))


@pytest.mark.parametrize("num_codes", SIZES)
def test_every_code_has_a_leaf_of_its_own(num_codes):
    rng = np.random.default_rng(0)
    paths = grow_tree(rng.normal(size=(num_codes, 4)), rng.integers(1000, size=num_codes) ** 3)
    assert len(set(paths.tolist())) == num_codes
    assert paths.max() < TreeShape(num_codes).num_leaves


def test_similar_codes_share_branches():
    codebook = np.array([[0.0], [10.0], [0.1], [10.1]])
    paths = grow_tree(codebook, np.ones(4, dtype=np.int64))
    assert paths[0] // 2 == paths[2] // 2 != paths[1] // 2 == paths[3] // 2


def test_codes_of_one_place_are_told_apart():
    assert sorted(grow_tree(np.zeros((5, 2)), np.zeros(5, dtype=np.int64)).tolist())[-1] < 8


@pytest.mark.parametrize("num_codes", [16, 40])
def test_fitted_tables_beat_packed_on_smooth_tokens(num_codes):
    layout = TokenLayout((8, 8), num_codes)
    tokens = smooth_tokens(num_codes, 600, layout.grid)
    codebook = np.linspace(0, 1, num_codes)[:, None]
    tables = fit_tables(tokens[:500], codebook, total_samples=100_000)
    codec = ContextCodec(layout, tables)
    data = codec.encode(tokens[500:])
    np.testing.assert_array_equal(codec.decode(data), tokens[500:])
    assert decode_frame(data, kind=Kind.TOKENS).coding is Coding.CONTEXT
    assert len(data) < 0.7 * len(PackedCodec(layout).encode(tokens[500:]))


def test_fitting_is_deterministic():
    tokens = smooth_tokens(40, 60, (6, 6))
    codebook = np.random.default_rng(0).normal(size=(40, 3))
    first, second = (fit_tables(tokens, codebook, total_samples=1000).to_bytes() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("count", [1, 2, 17])
def test_few_samples_get_small_tables(count):
    tokens = random_tokens(391, count, (4, 4))
    tables = fit_tables(tokens, np.arange(391.0)[:, None], total_samples=count)
    assert not tables.weights.any()
    assert len(tables.to_bytes()) < 2500


def test_a_block_that_would_grow_is_packed():
    layout = TokenLayout((8, 8), 256)
    codec = ContextCodec(layout, random_tables(256))
    tokens = random_tokens(256, 5, layout.grid)
    data = codec.encode(tokens)
    assert data == PackedCodec(layout).encode(tokens)
    np.testing.assert_array_equal(codec.decode(data), tokens)
    np.testing.assert_array_equal(codec.decode_rows(data, np.array([3, 0])), tokens[[3, 0]])


@pytest.fixture(scope="module")
def fitted():
    layout = TokenLayout((6, 7), 100)
    tokens = smooth_tokens(100, 400, layout.grid)
    tables = fit_tables(tokens, np.linspace(0, 1, 100)[:, None], total_samples=400)
    codec = ContextCodec(layout, tables)
    data = codec.encode(tokens[:30])
    assert decode_frame(data, kind=Kind.TOKENS).coding is Coding.CONTEXT
    return codec, tokens[:30], data


@pytest.mark.parametrize("rows", [[], [0], [29], [5, 5, 2], list(range(30))[::-1]])
def test_rows_are_decoded_alone(fitted, rows):
    codec, tokens, data = fitted
    found = codec.decode_rows(data, np.array(rows, dtype=np.int64))
    np.testing.assert_array_equal(found, tokens[rows])
    assert found.dtype == np.uint16


def test_packed_rows_of_a_coded_block(fitted):
    codec, tokens, data = fitted
    packed = PackedCodec(codec.layout)
    expected = packed.decode_packed(packed.encode(tokens))
    np.testing.assert_array_equal(codec.decode_packed(data), expected)


def test_threads_share_a_codec(fitted):
    codec, tokens, data = fitted
    wrong = []

    def work():
        wrong.extend(not np.array_equal(codec.decode(data), tokens) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [False] * 80


def test_tables_come_back(fitted):
    codec, tokens, data = fitted
    rebuilt = build_codec("context", codec.layout, tables=codec.tables)
    np.testing.assert_array_equal(rebuilt.decode(data), tokens)
    assert rebuilt.tables == codec.tables
    assert rebuilt.card_entry == {"name": "context", "bits": 7}


def reseal(data, payload, *, raw_bytes=None):
    frame = decode_frame(data, kind=Kind.TOKENS)
    return seal_frame(
        Kind.TOKENS,
        payload,
        count=frame.count,
        raw_bytes=frame.raw_bytes if raw_bytes is None else raw_bytes,
        coding=Coding.CONTEXT,
    )


def test_damage_under_a_right_checksum_is_named(fitted):
    codec, _, data = fitted
    payload = decode_frame(data, kind=Kind.TOKENS).raw
    for wrong, reason in [
        (payload[:-2], "do not add up"),
        (payload + b"\0\0", "do not add up"),
        (payload[:-1], "cannot hold"),
        (b"", "cannot hold"),
        (b"\0\0" + payload[2:], "do not add up"),
        (b"\xff\xff" + payload[2:], "do not add up"),
    ]:
        with pytest.raises(DamagedError, match=reason):
            codec.decode(reseal(data, wrong))
    with pytest.raises(DamagedError, match="were expected"):
        codec.decode(reseal(data, payload, raw_bytes=1))
    with pytest.raises(DamagedError, match="coding context stands in a packed store"):
        PackedCodec(codec.layout).decode(data)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_change_of_the_streams_is_damage_or_other_ids(fitted, data):
    codec, tokens, coded = fitted
    payload = bytearray(decode_frame(coded, kind=Kind.TOKENS).raw)
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = codec.decode(reseal(coded, bytes(payload)))
    except DamagedError:
        return
    assert found.shape == tokens.shape
    assert found.max() < 100


def test_tables_that_are_none_are_damage(fitted):
    codec, _, _ = fitted
    raw = lzma.decompress(codec.tables)
    good = codec.tables
    for wrong, reason in [
        (good[:-1], "unfold|decompress"),
        (good + b"x", "unfold"),
        (b"", "unfold"),
        (b"nonsense" * 8, "do not decompress"),
        (lzma.compress(raw[:-1]), "unfold"),
        (lzma.compress(raw + b"x"), "unfold"),
        (lzma.compress(b"\x02" + raw[1:]), "upgrade"),
        (lzma.compress(raw[:8] + raw[10:12] + raw[10:]), "one leaf"),
        (lzma.compress(raw[:8] + b"\xff\x7f" + raw[10:]), "outside the tree"),
        (lzma.compress(raw[:208] + b"\0\0" + raw[210:]), "probability"),
    ]:
        with pytest.raises(DamagedError, match=reason):
            ContextTables.from_bytes(wrong, 100)
    with pytest.raises(DamagedError, match="unfold"):
        ContextTables.from_bytes(good, 101)
    with pytest.raises(DamagedError, match="supports 2 to 4096"):
        ContextTables.from_bytes(good, 5000)
    with pytest.raises(DamagedError, match="tables of the context codec are missing"):
        build_codec("context", codec.layout)


def test_a_bomb_of_tables_takes_no_memory():
    bomb = lzma.compress(bytes(1 << 27), preset=1)
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError):
            ContextTables.from_bytes(bomb, 16)
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


def test_too_many_codes_are_refused():
    with pytest.raises(UsageError, match="up to 4,096 codes, not 5,000"):
        ContextCodec(TokenLayout((2, 2), 5000), random_tables(16))
    with pytest.raises(DamagedError, match="tables for 16 codes"):
        ContextCodec(TokenLayout((2, 2), 17), random_tables(16))


def test_the_bias_is_folded_into_the_upper_neighbour():
    tables = random_tables(5, spread=127)
    np.testing.assert_array_equal(tables.folded[0], tables.weights[0])
    expected = np.clip(tables.weights[1].astype(int) + tables.bias, -128, 127)
    np.testing.assert_array_equal(tables.folded[1], expected)


def test_the_squash_is_the_logistic_function():
    squash = make_squash()
    scores = np.arange(-96, 97) / 8
    assert abs(squash / 2**15 - 1 / (1 + np.exp(scores))).max() <= 0.5 / 2**15 + 2**-15
    assert squash[96] == 2**14
    assert (np.diff(squash.astype(int)) <= 0).all()
