import pickle

import numpy as np
import pytest
import torch
from support.stores import build_store
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

import seit
from seit.errors import DamagedError, UsageError
from seit.stream import StreamDataset, TokenDataset, loader

NUM_SAMPLES = 203
FORMS = [("packed", "wds"), ("context", "zarr")]
COUNTS = {"wds": (72, 40, 0, 91), "zarr": (64, 64, 64, 11)}


@pytest.fixture(scope="module", params=FORMS, ids="-".join)
def split_and_columns(request, tmp_path_factory):
    codec, container = request.param
    path = tmp_path_factory.mktemp("store")
    columns = build_store(
        path,
        grid=(5, 6),
        num_codes=40,
        shards={"train": COUNTS[container]},
        block_samples=8,
        codec=codec,
        container=container,
    )
    return seit.open(path)["train"], columns["train"]


@pytest.fixture
def split(split_and_columns):
    return split_and_columns[0]


def check_items(items, rows, columns):
    """Items hold what was written at ``rows``."""
    assert len(items) == len(rows)
    for item, row in zip(items, rows, strict=True):
        np.testing.assert_array_equal(item["tokens"].numpy(), columns.tokens[row])
        assert item["label"] == columns.labels[row]
        assert item["key"] == columns.keys[row]


@pytest.mark.parametrize("resident", [True, False])
def test_items_are_what_was_written(split_and_columns, resident):
    split, columns = split_and_columns
    dataset = TokenDataset(split, resident=resident)
    assert len(dataset) == NUM_SAMPLES
    rows = [202, 0, 7, 8, 7, *np.random.default_rng(0).permutation(NUM_SAMPLES)[:40].tolist()]
    check_items(dataset.__getitems__(rows), rows, columns)
    check_items([dataset[row] for row in rows[:4]], rows[:4], columns)
    check_items([dataset[-1], dataset[np.int64(3)], dataset[torch.tensor(4)]], [202, 3, 4], columns)
    assert dataset.__getitems__([]) == []
    assert dataset[0]["tokens"].dtype == torch.int16


@pytest.mark.parametrize("index", [NUM_SAMPLES, -NUM_SAMPLES - 1])
def test_an_index_outside_is_an_error(split, index):
    with pytest.raises(IndexError, match="outside 203 samples"):
        TokenDataset(split)[index]


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize(
    ("num_codes", "dtype", "found"),
    [
        (40, None, torch.int16),
        (40, torch.int64, torch.int64),
        (40_000, None, torch.int32),
        (70_000, None, torch.int32),
        (70_000, torch.int64, torch.int64),
    ],
)
def test_the_dtype_holds_every_id(tmp_path, num_codes, dtype, found, resident):
    columns = build_store(tmp_path, num_codes=num_codes, shards={"train": (50,)})["train"]
    dataset = TokenDataset(seit.open(tmp_path)["train"], dtype=dtype, resident=resident)
    items = dataset.__getitems__(range(50))
    check_items(items, range(50), columns)
    assert {item["tokens"].dtype for item in items} == {found}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int16])
def test_a_dtype_that_cannot_hold_ids_is_refused(tmp_path, dtype):
    build_store(tmp_path, num_codes=40_000)
    with pytest.raises(UsageError, match=r"cannot hold ids below 40,000; pass torch\.int32"):
        TokenDataset(seit.open(tmp_path)["train"], dtype=dtype)


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_dataloader_yields_every_sample_once(split_and_columns, resident, num_workers):
    split, columns = split_and_columns
    dataset = TokenDataset(split, resident=resident)
    batches = DataLoader(
        dataset,
        batch_size=32,
        shuffle=True,
        num_workers=num_workers,
        multiprocessing_context="fork" if num_workers else None,
    )
    check_epoch(batches, columns)


@pytest.mark.slow  # what they are given is pickled in the tests below
def test_spawned_workers_read_the_split_anew(tmp_path):
    columns = build_store(tmp_path, grid=(5, 6), shards={"train": (50,)})["train"]
    dataset = TokenDataset(seit.open(tmp_path)["train"])
    batches = DataLoader(dataset, batch_size=20, num_workers=1, multiprocessing_context="spawn")
    check_epoch(batches, columns)


def check_epoch(batches, columns):
    keys = []
    for batch in batches:
        assert batch["tokens"].shape == (len(batch["key"]), 5, 6)
        assert batch["label"].dtype == torch.int64
        rows = [columns.keys.index(key) for key in batch["key"]]
        np.testing.assert_array_equal(batch["tokens"].numpy(), columns.tokens[rows])
        np.testing.assert_array_equal(batch["label"].numpy(), columns.labels[rows])
        keys += batch["key"]
    assert sorted(keys) == sorted(columns.keys)


@pytest.mark.parametrize("resident", [True, False])
def test_a_pickled_dataset_leaves_the_tokens_behind(tmp_path, resident):
    columns = build_store(tmp_path, grid=(16, 16), shards={"train": (2000,)})["train"]
    dataset = TokenDataset(seit.open(tmp_path)["train"], resident=resident)
    data = pickle.dumps(dataset)
    assert len(data) < 100_000 < 2000 * 16 * 16 // 2
    check_items(pickle.loads(data).__getitems__([0, 1999]), [0, 1999], columns)


def test_a_batch_reads_each_block_once(split, monkeypatch):
    dataset = TokenDataset(split, resident=False)
    reads = []
    for shard in split.shards:
        monkeypatch.setattr(
            shard,
            "open_token_rows",
            lambda block, rows, shard=shard: (
                reads.append((shard.record.file, block)),
                type(shard).open_token_rows(shard, block, rows),
            )[1],
        )
    dataset.__getitems__([0, 1, 100, 2, 101, 7, 0])
    assert len(reads) == len(set(reads)) == 2


@pytest.mark.parametrize("resident", [True, False])
def test_damaged_blocks_are_left_out_or_an_error(tmp_path, resident):
    columns = build_store(tmp_path, shards={"train": (40,)}, block_samples=8)["train"]
    split = seit.open(tmp_path)["train"]
    offset, size = split.shards[0].places[2].frames[seit.shards.frames.Kind.TOKENS]
    shard = tmp_path / "train" / "00000.tar"
    data = bytearray(shard.read_bytes())
    data[offset + size // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DamagedError, match=r"00000\.tar, block 2"):
        TokenDataset(seit.open(tmp_path)["train"], resident=resident).__getitems__(range(40))
    dataset = TokenDataset(seit.open(tmp_path, on_damage="skip")["train"], resident=resident)
    rows = [*range(16), *range(24, 40)]
    assert len(dataset) == 32
    check_items(dataset.__getitems__(range(32)), rows, columns)


def test_neighbours_come_by_a_batch_sampler_of_ones_own(split_and_columns):
    split, columns = split_and_columns
    dataset = TokenDataset(split, resident=False)
    sampler = BatchSampler(RandomSampler(dataset), 50, drop_last=False)
    check_epoch(DataLoader(dataset, batch_sampler=sampler), columns)


@pytest.mark.parametrize("mode", ["resident", "streaming"])
def test_a_stream_dataset_yields_the_batches_of_its_loader(split, mode):
    settings = {"batch_size": 16, "order": "window", "window_blocks": 4, "mode": mode}
    dataset = StreamDataset(loader(split, **settings))
    batches = DataLoader(dataset, batch_size=None)
    assert len(batches) == len(dataset) == NUM_SAMPLES // 16
    expected = loader(split, **settings)
    for _ in range(2):
        for found, batch in zip(batches, expected, strict=True):
            assert torch.equal(found["tokens"], batch.tokens)
            assert torch.equal(found["label"], batch.labels)
            assert found["key"] == batch.keys
    dataset.loader.close()
    expected.close()


def test_a_stream_dataset_refuses_workers(split):
    dataset = StreamDataset(loader(split, batch_size=16))
    batches = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(UsageError, match="pass num_workers=0"):
        next(iter(batches))
