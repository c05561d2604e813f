"""The public strategies, and what they show of the library itself."""

import contextlib
import importlib
import random
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find as find_least, given, settings, strategies as st

import seit
from seit.errors import DamagedError, SeitError, UsageError
from seit.shards import Block, PackedCodec, TokenLayout
from seit.shards.context import ContextCodec, reference
from seit.shards.context.codec import split_streams
from seit.shards.frames import Coding, Kind, decode_frame
from seit.stores import convert_store, verify_store
from seit.stores.official import ID_LIMIT, export_official, find_official, import_official
from seit.testing import (
    CLASSES,
    blocks,
    context_tables,
    metadata_entries,
    token_grids,
    token_layouts,
    write_store,
)

FORMS = [(codec, container) for codec in ("packed", "context") for container in ("wds", "zarr")]
ANY = settings(phases=[Phase.generate], max_examples=2000, deadline=None, database=None)
SMALL = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def find(strategy, condition=lambda _: True):
    """An example, not the least."""
    return find_least(strategy, condition, settings=ANY)


@given(st.data(), token_layouts())
@SMALL
def test_blocks_come_back_packed(data, layout):
    block = data.draw(blocks(layout))
    check_codec(PackedCodec(layout), block)


@given(st.data(), token_layouts(max_side=4, max_codes=40))
@SMALL
def test_blocks_come_back_by_any_tables(data, layout):
    block = data.draw(blocks(layout))
    tables = data.draw(context_tables(layout.num_codes))
    codec = ContextCodec(layout, tables)
    check_codec(codec, block)
    frame = decode_frame(codec.encode(block.tokens), kind=Kind.TOKENS)
    if frame.coding is Coding.CONTEXT:
        ids, whole = reference.decode(*split_streams(frame), layout.grid, tables)
        assert whole.all()
        np.testing.assert_array_equal(ids, block.tokens)


def check_codec(codec, block):
    layout = codec.layout
    assert block.tokens.dtype == layout.dtype
    frame = codec.encode(block.tokens)
    found = codec.decode(frame)
    np.testing.assert_array_equal(found, block.tokens)
    assert found.dtype == layout.dtype
    rows = np.arange(len(found))[::2]
    np.testing.assert_array_equal(codec.decode_rows(frame, rows), block.tokens[rows])
    packed = codec.decode_packed(frame)
    assert packed.shape == (len(block.keys), layout.sample_bytes)


@st.composite
def small_stores(draw, max_codes):
    """Splits, of which one at least is not empty, and all that `write_store` takes besides."""
    layout = draw(token_layouts(max_side=4, max_codes=max_codes))
    codec, container = draw(st.sampled_from(FORMS if max_codes < 100 else FORMS[:2]))
    splits = {"train": draw(blocks(layout, min_samples=1))}
    if draw(st.booleans()):
        splits["val"] = draw(blocks(layout))
    options = {
        "codec": codec,
        "container": container,
        "tables": draw(context_tables(layout.num_codes)) if codec == "context" else None,
        "block_samples": draw(st.integers(2, 4)),
    }
    return splits, layout, options


@given(small_stores(max_codes=40))
@settings(SMALL, max_examples=5)
def test_stores_become_any_other_form_without_loss(example):
    splits, layout, options = example
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_store(root / "first", splits, layout, **options)
        check_store(root / "first", splits)
        previous = "first"
        for codec, container in FORMS:
            name = f"{codec}-{container}"
            convert_store(root / previous, root / name, codec=codec, container=container)
            check_store(root / name, splits)
            previous = name


@given(small_stores(max_codes=ID_LIMIT))
@settings(SMALL, max_examples=8)
def test_stores_become_official_files_and_come_back(example):
    splits, layout, options = example
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_store(root / "store", splits, layout, **options)
        export_official(seit.open(root / "store"), root / "official")
        official, codebook = find_official(root / "official")
        import_official(official, codebook, root / "again", grid=layout.grid, classes=CLASSES)
        check_store(root / "again", splits, with_keys=False)


def check_store(path, splits, *, with_keys=True):
    assert verify_store(path).ok
    store = seit.open(path)
    assert set(store) == set(splits)
    for name, block in splits.items():
        split = store[name]
        np.testing.assert_array_equal(split.tokens[:], block.tokens)
        np.testing.assert_array_equal(split.labels, block.labels)
        if with_keys:
            assert split.keys == block.keys
            metadata = block.metadata or ({},) * len(block.keys)
            assert tuple(sample.metadata for sample in split) == metadata


@pytest.fixture(scope="module", params=FORMS, ids="-".join)
def form(request, tmp_path_factory):
    """A store of one form, and what it holds."""
    codec, container = request.param
    layout = TokenLayout((3, 4), 20)
    rng = random.Random(0)
    splits = {}
    for name, count in (("train", 7), ("val", 2)):
        starts = np.array([[rng.randrange(20)] for _ in range(count)])
        splits[name] = Block(
            tokens=((starts + np.arange(12) // 7) % 20).astype(np.uint16).reshape(count, 3, 4),
            labels=np.array([number % 4 - 1 for number in range(count)], dtype=np.int32),
            keys=tuple(f"{name}/ü{number}" for number in range(count)),
            metadata=tuple({"number": number} if number % 2 else {} for number in range(count)),
        )
    path = tmp_path_factory.mktemp("form") / "store"
    tables = find(context_tables(20)) if codec == "context" else None
    write_store(
        path,
        splits,
        layout,
        codec=codec,
        container=container,
        tables=tables,
        block_samples=3,
        shard_samples={"train": (6, 1)},
    )
    return path, content(path)


def content(path):
    store = seit.open(path)
    return store.codebook.tolist(), {
        name: (
            split.tokens[:].tolist(),
            split.labels.tolist(),
            split.keys,
            [sample.metadata for sample in split],
        )
        for name, split in store.items()
    }


@given(st.data())
@settings(SMALL, max_examples=40)
def test_any_changed_byte_is_found(form, data):
    path, expected = form
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.stat().st_size)
    file = data.draw(st.sampled_from(files))
    original = file.read_bytes()
    place = data.draw(st.integers(0, len(original) - 1))
    change = data.draw(st.integers(1, 255))
    changed = bytearray(original)
    changed[place] ^= change
    file.write_bytes(changed)
    try:
        damage = verify_store(path).damage
        assert [entry.file for entry in damage] == [str(file.relative_to(path))] * len(damage)
        assert damage
        with contextlib.suppress(DamagedError):  # what is read is right, or is not read
            assert content(path) == expected
    finally:
        file.write_bytes(original)


@pytest.fixture
def fuzz(tmp_path, monkeypatch):
    """Run a target on its seeds: as given, and with each effort or one in place of theirs."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "tools")
    targets, seeds = map(importlib.import_module, ("fuzz.targets", "fuzz.seeds"))

    def run(name, efforts, *, each):
        folder = tmp_path / name
        folder.mkdir()
        seeds.write_seeds(name, folder)
        files = sorted(folder.iterdir())
        assert len(files) >= 5
        for number, file in enumerate(files if each else files[::2]):
            data = file.read_bytes()
            for effort in efforts if each else efforts[number % 5 :: 5]:
                targets.run(targets.TARGETS[name], data[:1] + bytes([effort]) + data[2:])
            targets.run(targets.TARGETS[name], data)

    run.names = [*targets.TARGETS]
    return run


@pytest.mark.parametrize("each", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_fuzz_targets_take_their_seeds(fuzz, each):
    """Seeds are mostly intact, and each is used as given and with some way of putting it right.

    An effort of the target `store` is an operation, and its seeds name each.
    """
    for name in fuzz.names:
        fuzz(name, range(0 if name == "store" else 5), each=each)


@pytest.mark.slow
def test_operations_take_the_seeds_of_all(fuzz):
    fuzz("store", range(9), each=True)


# The strategies themselves


def test_grids_are_of_every_sort():
    layout = TokenLayout((2, 4), 70_000)
    grids = token_grids(layout, 2)
    for sort in (
        lambda ids: len(np.unique(ids)) == 1 and ids[0, 0, 0] > 65_536,
        lambda ids: len(np.unique(ids)) > 8,
        lambda ids: np.diff(ids.reshape(-1).astype(int)).max() == 1,
    ):
        ids = find(grids, sort)
        assert ids.shape == (2, 2, 4)
        assert ids.dtype == np.uint32
        assert ids.max() < 70_000


def test_blocks_are_of_every_sort():
    layout = TokenLayout((1, 2), 5)
    for sort in (
        lambda block: not block.keys,
        lambda block: block.metadata is not None and {} in block.metadata,
        lambda block: -1 in block.labels and 2 in block.labels,
        lambda block: any(not key.isascii() for key in block.keys),
    ):
        found = find(blocks(layout), sort)
        assert found.labels.dtype == np.int32
        assert len(set(found.keys)) == len(found.keys)
    assert len(find(blocks(layout, min_samples=3)).keys) == 3
    find(metadata_entries(), lambda entry: len(entry) == 2)


@pytest.mark.parametrize(("most", "dtype"), [(70_000, np.uint32), (65_536, np.uint16)])
def test_layouts_keep_to_their_limits(most, dtype):
    layouts = token_layouts(max_side=3, max_codes=most)
    assert find(layouts, lambda layout: layout.dtype == dtype).num_codes <= most
    assert find(layouts, lambda layout: layout.grid == (3, 1)).num_codes >= 2


def test_equal_arguments_make_equal_files(tmp_path):
    block = find(blocks(TokenLayout((2, 2), 9), min_samples=4))
    for name in ("one", "two"):
        write_store(tmp_path / name, {"train": block}, TokenLayout((2, 2), 9), block_samples=2)
    one, two = (
        {
            file.relative_to(folder): file.read_bytes()
            for file in folder.rglob("*")
            if file.is_file()
        }
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two


def test_a_store_without_an_index_reads_the_same(tmp_path):
    layout = TokenLayout((2, 2), 9)
    block = find(blocks(layout, min_samples=5), lambda block: block.metadata)
    for name, indexed in (("with", True), ("without", False)):
        write_store(
            tmp_path / name,
            {"train": block},
            layout,
            block_samples=2,
            shard_samples={"train": (4, 0, len(block.keys) - 4)},
            indexed=indexed,
        )
        check_store(tmp_path / name, {"train": block})
    assert not list((tmp_path / "without").rglob("*.index"))


def test_what_cannot_be_written_is_refused(tmp_path):
    layout = TokenLayout((1, 1), 2)
    for options, message in (
        ({"codec": "huffman"}, "no codec is named 'huffman'"),
        ({"container": "parquet"}, "no container is named 'parquet'"),
        ({"codec": "context"}, "needs tables"),
    ):
        with pytest.raises(UsageError, match=message):
            write_store(tmp_path / "store", {}, layout, **options)
    assert not (tmp_path / "store").exists()


def test_without_hypothesis_the_message_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.delitem(sys.modules, "seit.testing")
    with pytest.raises(SeitError, match="hypothesis, which is not installed"):
        importlib.import_module("seit.testing")
