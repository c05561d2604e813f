import gc
import hashlib
import io
import json
import pickle
import tarfile
import time
import warnings
from dataclasses import replace
from itertools import islice

import fsspec
import numpy as np
import pytest
import torch
import webdataset
from safetensors.numpy import save
from support.stores import build_store, edit_card, record_of, replace_shard, sealed

import seit
from seit.errors import DamagedError, SeitError, UsageError
from seit.lookahead import map_ahead
from seit.shards import PackedCodec, RemoteFolder, TokenLayout, read_card
from seit.shards.blocks import decode_keys, decode_labels, decode_metadata
from seit.shards.frames import Kind
from seit.stores import copy_store, verify_store
from seit.stream import unpack

SHARDS = {
    "wds": {"train": (7, 3, 0, 6, 5), "val": (4,)},
    "zarr": {"train": (6, 6, 6, 3), "val": (4,)},
}
STORES = [
    (16, (4, 4), "packed", "wds"),
    (70_000, (2, 7), "packed", "wds"),
    (2, (1, 1), "packed", "wds"),
    (40, (6, 5), "context", "wds"),
    (391, (3, 5), "packed", "zarr"),
    (70_000, (2, 7), "packed", "zarr"),
    (16, (4, 4), "context", "zarr"),
]


@pytest.fixture(scope="module", params=STORES, ids=lambda store: "-".join(map(str, store)))
def store_and_columns(request, tmp_path_factory):
    num_codes, grid, codec, container = request.param
    path = tmp_path_factory.mktemp("store")
    columns = build_store(
        path,
        grid=grid,
        num_codes=num_codes,
        shards=SHARDS[container],
        block_samples=3,
        with_metadata=True,
        codec=codec,
        container=container,
    )
    return seit.open(path), columns


@pytest.fixture
def small(tmp_path):
    build_store(tmp_path, shards={"train": (5, 2)}, block_samples=3)
    return tmp_path


@pytest.fixture
def unindexed(tmp_path):
    """A store without an index, whose tar headers are read."""
    build_store(tmp_path, shards={"train": (5, 2)}, block_samples=3, indexed=False)
    return tmp_path


def test_columns_come_back(store_and_columns):
    store, written = store_and_columns
    assert list(store) == ["train", "val"]
    for name, columns in written.items():
        split = store[name]
        assert len(split) == len(columns.keys)
        assert split.tokens.shape == columns.tokens.shape
        assert split.tokens[:].dtype == columns.tokens.dtype
        np.testing.assert_array_equal(split.tokens[:], columns.tokens)
        np.testing.assert_array_equal(np.asarray(split.tokens), columns.tokens)
        np.testing.assert_array_equal(np.stack(list(split.tokens)), columns.tokens)
        np.testing.assert_array_equal(split.labels, columns.labels)
        assert split.labels.dtype == np.int64
        assert split.keys == tuple(columns.keys)
        assert [sample.metadata for sample in split] == columns.metadata


def test_an_open_store_may_be_sent_to_other_processes(store_and_columns):
    store, written = store_and_columns
    for again in (pickle.loads(pickle.dumps(store)), pickle.loads(pickle.dumps(store["train"]))):
        split = again["train"] if len(again) == 2 else again
        np.testing.assert_array_equal(split.tokens[:], written["train"].tokens)
        assert split.keys == tuple(written["train"].keys)


def test_large_codebooks_give_uint32(store_and_columns):
    store, _ = store_and_columns
    wide = store.card.tokenizer.codebook_size > 65_536
    assert store["train"].tokens[0].dtype == (np.uint32 if wide else np.uint16)


def test_iterating_equals_indexing(store_and_columns):
    store, written = store_and_columns
    split, columns = store["train"], written["train"]
    samples = list(split)
    assert len(samples) == len(split) == 21
    for number, sample in enumerate(samples):
        for other in (split[number], split[number - len(split)], split[np.int64(number)]):
            np.testing.assert_array_equal(other.tokens, sample.tokens)
            assert (other.label, other.key, other.metadata) == (
                sample.label,
                sample.key,
                sample.metadata,
            )
        np.testing.assert_array_equal(sample.tokens, columns.tokens[number])
        assert sample.label == columns.labels[number]
        assert sample.key == columns.keys[number]
    assert [sample.key for sample in split[4:18:5]] == columns.keys[4:18:5]
    assert [sample.key for sample in reversed(split)] == columns.keys[::-1]


INDICES = [
    *(0, -1, 20, -21, np.int32(5), np.uint8(7), np.array(3), torch.tensor(4)),
    *(slice(None), slice(3, 9), slice(None, None, -1), slice(18, 2, -4), slice(-5, 99)),
    *(slice(5, 5), slice(99, None)),
    *([], [4], [20, 0, 0, -1, 7], (1, 2), np.array([5, 1]), np.array([], dtype=np.int64)),
    *(np.array([3, 3], dtype=np.uint64), torch.tensor([6, 2]), range(0, 20, 3)),
    *(np.arange(21) % 4 == 1, np.zeros(21, dtype=bool), [True] * 21),
]


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_tokens_are_indexed_as_arrays_are(store_and_columns, index):
    store, written = store_and_columns
    array = written["train"].tokens
    if isinstance(index, (slice, int, np.integer)):
        expected = array[index]
    else:
        index_array = np.asarray(index)
        expected = array[index_array if index_array.size else index_array.astype(int)]
        if index_array.dtype == bool:
            expected = array[index_array]
    found = store["train"].tokens[index]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "index",
    [
        *(21, -22, np.int64(21), [0, 21], [-22], np.array([2**63, 1], dtype=np.uint64)),
        *(np.array([2**64 - 1], dtype=np.uint64), 10**30),
    ],
    ids=repr,
)
def test_an_index_outside_is_an_index_error(store_and_columns, index):
    store, _ = store_and_columns
    with pytest.raises(IndexError, match="outside 21 samples"):
        store["train"].tokens[index]
    if isinstance(index, int):
        with pytest.raises(IndexError, match="outside 21 samples"):
            store["train"][index]


@pytest.mark.parametrize("index", [[0.5], [[1]], np.ones(3, dtype=bool), ["a"], np.ones((2, 2))])
def test_other_indices_are_refused(store_and_columns, index):
    store, _ = store_and_columns
    with pytest.raises(UsageError):
        store["train"].tokens[index]


def test_tokens_are_coded_as_the_card_says(store_and_columns):
    store, _ = store_and_columns
    shard = store["train"].shards[0]
    frame = shard.open_block(0, Kind.TOKENS)
    packed_bytes = 3 * store.card.layout.sample_bytes + 24
    assert (len(store.codec.encode(frame)) < packed_bytes) == (store.card.codec == "context")


def test_packed_rows_are_those_of_the_blocks(store_and_columns):
    store, written = store_and_columns
    packed = store["train"].packed()
    assert packed.shape == (21, store.card.layout.sample_bytes)
    tokens = unpack(
        torch.from_numpy(packed),
        length=store.card.layout.length,
        num_codes=store.card.layout.num_codes,
    )
    np.testing.assert_array_equal(tokens.numpy().reshape(21, *store.card.layout.grid),
                                  written["train"].tokens.astype(np.int64))  # fmt: skip


@pytest.mark.parametrize(
    ("counts", "container"), [((), "wds"), ((0,), "wds"), ((0, 0), "wds"), ((), "zarr")]
)
def test_a_split_may_be_empty(tmp_path, counts, container):
    build_store(tmp_path, shards={"train": (2,), "test": counts}, container=container)
    split = seit.open(tmp_path)["test"]
    assert len(split) == 0
    assert split.tokens[:].shape == (0, 4, 4)
    assert split.tokens[[]].shape == (0, 4, 4)
    assert split.labels.shape == (0,)
    assert split.keys == ()
    assert list(split) == []
    assert split.packed().shape == (0, 8)
    with pytest.raises(IndexError):
        split[0]


def test_a_block_without_samples_leaves_no_trace(tmp_path):
    layout = TokenLayout((4, 4), 16)
    with seit.shards.ShardWriter(tmp_path, split="a", index=0, codec=PackedCodec(layout)) as writer:
        writer.write(seit.shards.Block(np.zeros((0, 4, 4), np.uint16), np.zeros(0, np.int32), ()))
    assert writer.record.samples == 0
    with tarfile.open(tmp_path / writer.record.file) as tar:
        assert tar.getnames() == []


def test_a_failed_shard_leaves_nothing(tmp_path):
    layout = TokenLayout((4, 4), 16)
    with (
        pytest.raises(ZeroDivisionError),
        seit.shards.ShardWriter(tmp_path, split="a", index=0, codec=PackedCodec(layout)),
    ):
        raise ZeroDivisionError
    assert list((tmp_path / "a").iterdir()) == []


def test_a_shard_of_too_many_blocks_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("seit.shards.wds.MAX_SHARD_BLOCKS", 2)
    with pytest.raises(SeitError, match="would hold more than 2 blocks; write fewer samples"):
        build_store(tmp_path / "a", shards={"train": (7,)}, block_samples=3)
    monkeypatch.undo()
    build_store(tmp_path / "b", shards={"train": (7,)}, block_samples=3, indexed=False)
    monkeypatch.setattr("seit.shards.wds.MAX_SHARD_BLOCKS", 2)
    with pytest.raises(DamagedError, match="holds more than 2 blocks"):
        list(seit.open(tmp_path / "b")["train"])


@pytest.mark.parametrize("codec", ["packed", "context"])
@pytest.mark.parametrize("container", ["wds", "zarr"])
def test_equal_samples_make_equal_files(tmp_path, codec, container):
    for name in ("a", "b"):
        build_store(
            tmp_path / name,
            shards=SHARDS[container],
            block_samples=3,
            with_metadata=True,
            codec=codec,
            container=container,
        )
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file():
            other = tmp_path / "b" / path.relative_to(tmp_path / "a")
            assert path.read_bytes() == other.read_bytes()


def test_webdataset_reads_the_shards(store_and_columns):
    store, written = store_and_columns
    if store.card.container != "wds":
        pytest.skip("its shards are no tars")
    columns = written["train"]
    shards = [shard.record for shard in store["train"].shards]
    urls = [str(store.path / shard.file) for shard in shards if shard.samples]
    dataset = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
    tokens, labels, keys, metadata, names = [], [], [], [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the library leaves its files open
        for group in dataset:
            names.append(group["__key__"])
            tokens.append(store.codec.decode(group["tokens"]))
            labels += decode_labels(group["labels"]).tolist()
            keys += decode_keys(group["keys"])
            metadata += decode_metadata(group["metadata"])
        gc.collect()
    np.testing.assert_array_equal(np.concatenate(tokens), columns.tokens)
    assert labels == columns.labels.tolist()
    assert keys == columns.keys
    assert metadata == columns.metadata
    assert names[:4] == ["00000-0000", "00000-0001", "00000-0002", "00001-0000"]


def test_the_codebook_is_checked(small):
    store = seit.open(small)
    assert store.codebook.shape == (16, 4)
    assert store.codebook.dtype == np.float32
    data = bytearray((small / "codebook.safetensors").read_bytes())
    data[-1] ^= 1
    (small / "codebook.safetensors").write_bytes(data)
    with pytest.raises(DamagedError, match=r"codebook\.safetensors does not match its checksum"):
        _ = seit.open(small).codebook
    (small / "codebook.safetensors").unlink()
    with pytest.raises(DamagedError, match=r"codebook\.safetensors is damaged"):
        _ = seit.open(small).codebook


@pytest.mark.parametrize(
    "tensors",
    [
        {"codebook": np.zeros((16, 5), np.float32)},
        {"codebook": np.zeros((16, 4), np.float64)},
        {"other": np.zeros((16, 4), np.float32)},
    ],
)
def test_a_codebook_that_the_card_does_not_describe(small, tensors):
    (small / "codebook.safetensors").write_bytes(save(tensors))
    record = record_of(small, "codebook.safetensors")
    edit_card(small, lambda body: body["files"][0].update(bytes=record.bytes, sha256=record.sha256))
    with pytest.raises(DamagedError, match="codebook"):
        _ = seit.open(small).codebook


@pytest.fixture(params=["wds", "zarr"])
def coded(request, tmp_path):
    """A small store whose tokens are context-coded."""
    build_store(
        tmp_path,
        shards={"train": (6, 2)},
        block_samples=3,
        codec="context",
        container=request.param,
    )
    return tmp_path


def put_tensors(path, tensors):
    """Put another codebook file in place, and have the card agree with it."""
    (path / "codebook.safetensors").write_bytes(save(tensors))
    record = record_of(path, "codebook.safetensors")
    edit_card(path, lambda body: body["files"][0].update(bytes=record.bytes, sha256=record.sha256))


CODEBOOK = np.zeros((16, 4), np.float32)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"codebook": CODEBOOK}, "holds no tensor 'codec.tables'; restore it from a copy"),
        ({"codebook": CODEBOOK, "codec.tables": np.zeros(4)}, "tables float64 .* expected bytes"),
        ({"codebook": CODEBOOK, "codec.tables": np.zeros((2, 2), np.uint8)}, r"tables uint8 \(2,"),
        ({"codebook": CODEBOOK, "codec.tables": np.zeros(40, np.uint8)}, "tables"),
        ({"codebook": CODEBOOK, "codec.tables": np.zeros(0, np.uint8)}, "tables"),
    ],
)
@pytest.mark.parametrize("on_damage", ["raise", "skip"])
def test_the_tables_of_the_codec_are_checked_when_tokens_are_read(
    coded, tensors, message, on_damage
):
    keys = seit.open(coded)["train"].keys
    put_tensors(coded, tensors)
    split = seit.open(coded, on_damage=on_damage)["train"]
    for read in (
        lambda: split[0],
        lambda: split.tokens[[1]],
        split.packed,
        lambda: list(split),
        lambda: list(split.tokens),
    ):
        with pytest.raises(DamagedError, match=message) as caught:
            read()
        assert "\n" not in str(caught.value)
        assert "block" not in str(caught.value)
    assert seit.open(coded)["train"].keys == keys


def test_the_card_is_canonical_and_sealed(small):
    text = (small / "store.json").read_text()
    body = json.loads(text)
    del body["sha256"]
    assert sealed(body) == text
    card = read_card(small)
    assert card.to_text() == text
    assert (card.samples, card.samples_of("train")) == (7, 7)
    assert seit.open(small).num_bytes == sum(
        path.stat().st_size for path in small.rglob("*") if path.is_file()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda body: body.update(version=2), "version 2; this version of seit reads version 1"),
        (lambda body: body.update(version="next"), "store version next"),
        (lambda body: body.update(format="other"), "describes a 'other'"),
        (lambda body: body["codec"].update(name="wavelet"), "the codec 'wavelet'"),
        (lambda body: body.update(container="chest"), "the container 'chest'"),
    ],
)
def test_stores_of_another_kind_are_refused_by_name(small, change, message):
    edit_card(small, change)
    with pytest.raises(UsageError, match=message):
        seit.open(small)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.pop("codec"),
        lambda body: body.update(extra=1),
        lambda body: body["codec"].update(bits=5),
        lambda body: body.update(block_samples=0),
        lambda body: body.update(block_samples=65_537),
        lambda body: body.update(block_samples=3.0),
        lambda body: body.update(version=True),
        lambda body: body.update(classes="abc"),
        lambda body: body.update(classes=[1]),
        lambda body: body.update(splits=[]),
        lambda body: body.update(quality={"psnr_db": float("nan")}),
        lambda body: body.update(job=None),
        lambda body: body["tokenizer"].update(grid=[4]),
        lambda body: body["tokenizer"].update(grid=[0, 4]),
        lambda body: body["tokenizer"].update(codebook_size=1),
        lambda body: body["tokenizer"].update(codebook_size=2**31 + 1),
        lambda body: body["splits"]["train"].update(samples=8),
        lambda body: body["splits"]["train"]["shards"][0].update(samples=-1),
        lambda body: body["splits"]["train"]["shards"][0].update(samples=2**63),
        lambda body: claim_samples(body, 3 * 65_536 + 1, bytes=2**40),
        lambda body: body["splits"]["train"].update(
            samples=2**40 + 2, shards=[{**body["splits"]["train"]["shards"][0], "samples": 2**40}]
        ),
        lambda body: body["splits"]["train"]["shards"][0].update(file="../train/00000.tar"),
        lambda body: body["splits"]["train"]["shards"][0].update(file="/etc/passwd"),
        lambda body: body["splits"]["train"]["shards"][0].update(file="train//00000.tar"),
        lambda body: body["splits"]["train"]["shards"][0].update(file=""),
        lambda body: body["splits"]["train"]["shards"][0].update(file="a\0b"),
        lambda body: body["splits"]["train"]["shards"][1].update(file="train/00000.tar"),
        lambda body: body["files"][0].update(file="store.json"),
        lambda body: body.update(container="zarr"),
    ],
)
def test_sealed_nonsense_in_a_card_is_damage(small, change):
    edit_card(small, change)
    with pytest.raises(DamagedError, match=r"store\.json"):
        seit.open(small)


def remove_file(body, name):
    body["files"] = [entry for entry in body["files"] if entry["file"] != name]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda body: body.update(block_samples=4), "cut evenly"),
        (lambda body: claim_samples(body, 5), "cut evenly"),
        (lambda body: claim_samples(body, 9, bytes=2**20), "cut evenly"),
        (lambda body: claim_samples(body, 3 * 4097, bytes=2**40), "over the limit of 4096"),
        (lambda body: body["splits"]["train"]["shards"].reverse(), "cut evenly"),
        (lambda body: remove_file(body, "train.zarr/labels/c/1"), "names no train.zarr/labels/c/1"),
        (lambda body: remove_file(body, "train.zarr/zarr.json"), "names no train.zarr/zarr.json"),
        (lambda body: remove_file(body, "train.zarr/metadata/c/0"), "names no train.zarr/metadata"),
        (lambda body: body["splits"].update(val=body["splits"].pop("train")), "val.zarr: the card"),
    ],
)
def test_sealed_nonsense_about_zarr_groups_is_damage(tmp_path, change, reason):
    shards = {"train": (6, 6, 2)}
    build_store(tmp_path, shards=shards, block_samples=3, with_metadata=True, container="zarr")
    assert len(seit.open(tmp_path)["train"]) == 14
    edit_card(tmp_path, change)
    with pytest.raises(DamagedError, match=rf"store\.json: .*{reason}"):
        seit.open(tmp_path)


@pytest.fixture
def memory():
    """A folder of fsspec's file system in memory."""
    filesystem = fsspec.filesystem("memory")
    yield "memory://store"
    filesystem.rm("/store", recursive=True)


@pytest.mark.parametrize(("codec", "container"), [("context", "wds"), ("context", "zarr")])
def test_bytes_that_change_on_the_way_are_asked_for_again(
    tmp_path, memory, monkeypatch, codec, container
):
    shards = {"train": (6, 6, 2)}
    columns = build_store(
        tmp_path / "store",
        shards=shards,
        block_samples=3,
        with_metadata=True,
        codec=codec,
        container=container,
    )["train"]
    copy_store(tmp_path / "store", memory)
    assert verify_store(memory) == verify_store(tmp_path / "store")
    store = seit.open(memory, cache_dir=tmp_path / "cache")
    _ = store.codec
    changed = set()
    read = RemoteFolder.read

    def change(self, name, offset=0, size=None):
        data = bytearray(read(self, name, offset, size))
        if "index" not in name and (name, offset) not in changed:
            changed.add((name, offset))
            data[len(data) // 2] ^= 16
        return bytes(data)

    monkeypatch.setattr(RemoteFolder, "read", change)
    assert [sample.key for sample in store["train"]] == columns.keys
    np.testing.assert_array_equal(store["train"].tokens[:], columns.tokens)
    assert len(changed) >= {"wds": 5, "zarr": 3 * 4 + 5 * 4}[container]


def assert_unreadable(path, message):
    """No way of reading a split returns anything."""
    for read in (
        lambda split: split[0],
        lambda split: split.tokens[[1]],
        lambda split: split.labels,
        lambda split: split.packed(),
        list,
    ):
        with pytest.raises(DamagedError, match=message):
            read(seit.open(path)["train"])


def test_zarr_shards_with_other_blocks_than_the_card_says(tmp_path):
    build_store(tmp_path, shards={"train": (6, 6, 2)}, block_samples=3, container="zarr")
    edit_card(tmp_path, lambda body: body.update(block_samples=2))
    assert_unreadable(tmp_path, r"^train\.zarr/\w+/c/0.* is not an intact shard: ")


def test_the_context_codec_of_too_many_codes_is_damage(tmp_path):
    build_store(tmp_path, num_codes=5000)
    edit_card(tmp_path, lambda body: body["codec"].update(name="context"))
    with pytest.raises(DamagedError, match="'context' serves no 5000 codes"):
        seit.open(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{",
        "\ufeff{}",
        "[" * 100_000,
        '{"format": "seit-store"}',
        '{"format": "seit-store", "version": 1}',
        '{"format": "seit-store", "version": ' + "9" * 5000 + "}",
        sealed({"format": "seit-store", "version": 1}),
        sealed({"format": "seit-store", "version": 1, "tokenizer": "\N{SNOWMAN}"}),
    ],
)
def test_other_texts_are_no_card(tmp_path, text):
    (tmp_path / "store.json").write_text(text)
    with pytest.raises(DamagedError, match=r"store\.json"):
        seit.open(tmp_path)


@pytest.mark.parametrize("value", ['"\\ud800"', "1e999", "[" * 900 + "]" * 900])
def test_values_that_cannot_be_written_again_are_damage(small, value):
    text = (small / "store.json").read_text().replace('"größe": null', f'"größe": {value}')
    (small / "store.json").write_text(sealed_text(text))
    with pytest.raises(DamagedError, match=r"store\.json"):
        seit.open(small)


def sealed_text(text):
    """Seal a card's text anew, whatever stands in it."""
    body = text[: text.rindex(',\n  "sha256"')]
    digest = hashlib.sha256(f"{body}\n}}\n".encode()).hexdigest()
    return f'{body},\n  "sha256": "{digest}"\n}}\n'


def test_a_missing_store_says_what_to_do(tmp_path):
    with pytest.raises(UsageError, match=r"holds no store\.json; make one with `seit tokenize SRC"):
        seit.open(tmp_path)
    with pytest.raises(UsageError, match="is not a folder; make one with"):
        seit.open(tmp_path / "nowhere")


def test_an_unknown_split_names_the_others(store_and_columns):
    store, _ = store_and_columns
    assert "test" not in store
    with pytest.raises(UsageError, match="no split 'test'; it has train, val"):
        store["test"]


def claim_samples(body, samples, **other):
    shards = body["splits"]["train"]["shards"]
    shards[0].update(samples=samples, **other)
    body["splits"]["train"]["samples"] = sum(shard["samples"] for shard in shards)


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.update(block_samples=2),
        lambda body: body.update(block_samples=5),
        lambda body: claim_samples(body, 7),
        lambda body: claim_samples(body, 4),
    ],
)
def test_a_shard_with_other_blocks_than_the_card_says(tmp_path, change, indexed):
    build_store(tmp_path, shards={"train": (5,)}, block_samples=3, indexed=indexed)
    edit_card(tmp_path, change)
    assert_unreadable(tmp_path, r"train/(00000\.tar|blocks\.index)")


def test_labels_need_classes(tmp_path):
    build_store(tmp_path, shards={"train": (50,)})
    edit_card(tmp_path, lambda body: body.update(classes=["ant", "bee"]))
    with pytest.raises(DamagedError, match="labels from -1 to 2 where the card names 2 classes"):
        _ = seit.open(tmp_path)["train"].labels


def repacked(path, change, **options):
    """The members of a shard, a list of (info, data) that ``change`` maps, as another tar."""
    out = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=out, mode="w", **options) as new:
        for info, data in change([(info, old.extractfile(info).read()) for info in old]):
            info.size = len(data)
            new.addfile(info, io.BytesIO(data))
    return out.getvalue()


def renamed(members, number, name):
    members[number][0].name = name
    return members


def as_link(members):
    members[0][0].type, members[0][0].linkname = tarfile.SYMTYPE, "/etc/passwd"
    return [(members[0][0], b""), *members[1:]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda members: members[3:], "block 0 is named '00000-0001'"),
        (lambda members: members[3:] + members[:3], "block 0 is named '00000-0001'"),
        (lambda members: members[1:], "block 0 lacks its tokens"),
        (lambda members: members[:-1], "block 1 lacks its keys"),
        (lambda members: [members[0], *members], "stands twice"),
        (lambda members: [*members, *members[:3]], "block 2 is named '00000-0000'"),
        (lambda members: renamed(members, 0, "00000-0000.pickle"), "unexpected tar member"),
        (lambda members: renamed(members, 0, "tokens"), "unexpected tar member"),
        (lambda members: renamed(members, 0, "ü.tokens"), "not that of a plain file"),
        (as_link, "not that of a plain file"),
        (lambda members: [members[1], members[0], *members[2:]], "do not stand in the order"),
    ],
)
def test_other_members_are_refused(unindexed, change, reason):
    path = unindexed / "train" / "00000.tar"
    replace_shard(unindexed, "train/00000.tar", repacked(path, change, format=tarfile.USTAR_FORMAT))
    with pytest.raises(DamagedError, match=rf"train/00000\.tar.*{reason}"):
        seit.open(unindexed)["train"][0]


def test_pax_and_gnu_records_are_refused_and_plain_gnu_tars_read(unindexed):
    path = unindexed / "train" / "00000.tar"
    intact = path.read_bytes()
    keys = seit.open(unindexed)["train"].keys

    def long_names(members):
        return renamed(members, 0, "0" * 120 + "-0000.tokens")

    for options in ({"format": tarfile.GNU_FORMAT}, {"format": tarfile.PAX_FORMAT}):
        replace_shard(unindexed, "train/00000.tar", repacked(path, long_names, **options))
        with pytest.raises(DamagedError, match="not that of a plain file"):
            seit.open(unindexed)["train"][0]
        path.write_bytes(intact)
        replace_shard(
            unindexed, "train/00000.tar", repacked(path, lambda members: members, **options)
        )
        assert seit.open(unindexed)["train"].keys == keys


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:-1024].rstrip(b"\0"), "ends inside|ends before|do not fit"),
        (lambda data: data[:500], "5 samples do not fit into train/00000.tar"),
        (lambda data: data[: len(data.rstrip(b"\0")) // 512 * 512 + 1024], "ends before"),
        (lambda data: data + b"x", "something follows the end"),
        (lambda data: b"\x1f\x8b" + data[2:], "does not match its checksum"),
    ],
)
def test_files_that_are_no_tar(unindexed, change, reason):
    path = unindexed / "train" / "00000.tar"
    replace_shard(unindexed, "train/00000.tar", change(path.read_bytes()))
    with pytest.raises(DamagedError, match=reason):
        seit.open(unindexed)["train"][0]


def test_the_card_of_another_program_is_no_store(tmp_path):
    (tmp_path / "store.json").write_text('{"format": "grocer", "version": 7}')
    with pytest.raises(UsageError, match="describes a 'grocer', not a 'seit-store'"):
        seit.open(tmp_path)


def test_results_come_in_order_and_not_too_far_ahead():
    begun = []

    def work(number):
        begun.append(number)
        time.sleep(0.002 * (number % 3))
        return number

    results = map_ahead(work, range(40), most=3)
    assert next(results) == 0
    assert begun == [0]
    for number, result in enumerate(results, start=1):
        assert result == number
        assert len(begun) <= number + 1 + 4
    assert sorted(begun) == list(range(40))
    assert list(map_ahead(work, [])) == []
    assert list(map_ahead(work, [7], most=1)) == [7]
    assert list(map_ahead(work, range(5), most=1)) == list(range(5))


def test_an_error_comes_in_its_turn_and_ends_the_work():
    begun = []

    def work(number):
        begun.append(number)
        if number == 5:
            raise DamagedError("it is the fifth")
        return number

    results = map_ahead(work, range(1000), most=4)
    assert list(islice(results, 5)) == list(range(5))
    with pytest.raises(DamagedError, match="it is the fifth"):
        next(results)
    assert len(begun) < 20
    results = map_ahead(work, range(6, 1000), most=4)
    assert [next(results), next(results)] == [6, 7]
    results.close()
    assert len(begun) < 40


def test_a_card_knows_the_size_of_its_images(tmp_path):
    build_store(tmp_path / "store", grid=(4, 4))
    store = seit.open(tmp_path / "store")
    assert store.card.tokenizer.image_size == 32
    assert store.levels == 1
    unknown = replace(store.card.tokenizer, preprocessing={})
    assert unknown.image_size is None
    with pytest.raises(UsageError, match="known size"):
        unknown.require_image_size()
