"""Memory of a resident split, and the choice between resident and streamed."""

import tracemalloc

import numpy as np
import pytest
import torch
from support.stores import build_store

import seit
from seit import memory
from seit.errors import UsageError
from seit.shards import Shard
from seit.stream import StreamingLoader, loader


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    path = tmp_path_factory.mktemp("large")
    columns = build_store(path, shards={"train": (30_000,)})
    return path, columns["train"].keys


def test_a_resident_split_keeps_its_tokens_and_eight_bytes_a_sample(large):
    path, keys = large
    split = seit.open(path)["train"]
    assert len(split.packed()) == len(split.labels)  # compiles
    del split
    tracemalloc.start()
    try:
        split = seit.open(path)["train"]
        batches = loader(split, batch_size=64, mode="resident", seed=0)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    per_sample = split.layout.sample_bytes + 8
    assert kept < 30_000 * (per_sample + 2)
    assert peak < 30_000 * (per_sample + 16), "keys or labels were gathered on the way"
    batch = next(iter(batches))
    assert batch.keys == [keys[row] for row in batch.indices.tolist()]


@pytest.mark.parametrize("container", ["wds", "zarr"])
def test_keys_of_intact_samples_are_their_own(tmp_path, container):
    columns = build_store(
        tmp_path, shards={"train": (20, 20)}, block_samples=5, container=container
    )["train"]
    store = seit.open(tmp_path)
    place = store["train"].shards[0]._find(1, seit.shards.Kind.TOKENS)
    file = tmp_path / store["train"].shards[0].record.file
    with file.open("r+b") as opened:
        opened.seek(place[0] + 40)
        opened.write(b"\xff\x00" * 4)
    split = seit.open(tmp_path, on_damage="skip")["train"]
    assert split.skipped_samples == 5
    left = [key for row, key in enumerate(columns.keys) if not 5 <= row < 10]
    stored = loader(split, batch_size=7, shuffle=False, mode="resident")
    assert [key for batch in stored for key in batch.keys] == left
    labels = np.delete(np.asarray(columns.labels), slice(5, 10))
    found = [label for batch in stored.epoch(0) for label in batch.labels.tolist()]
    assert found == labels.tolist()


@pytest.mark.parametrize(
    ("free", "processes", "kind"),
    [
        (2 * 30_000 * (8 + 8), 1, "ResidentLoader"),
        (2 * 30_000 * (8 + 8) - 1, 1, "StreamingLoader"),
        (2 * 30_000 * (8 + 8), 2, "StreamingLoader"),
        (4 * 30_000 * (8 + 8), 2, "ResidentLoader"),
        (None, 4, "ResidentLoader"),
    ],
)
def test_auto_counts_labels_and_all_processes(large, monkeypatch, free, processes, kind):
    monkeypatch.setattr("seit.stream.loaders.available_bytes", lambda: free)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    split = seit.open(large[0])["train"]
    assert split.layout.sample_bytes == 8
    found = loader(split, batch_size=64, order="window", rank=0, world_size=4)
    assert type(found).__name__ == kind
    found.close()


def labeled(path):
    """The split with a label for each sample."""
    split = seit.open(path)["train"]
    split.labels = np.arange(len(split)) % 3
    return split


@pytest.mark.parametrize(
    ("settings", "per_sample"),
    [
        ({"sampling": "balanced"}, 8 + 8 + 16),
        ({"subset": np.arange(15_000)}, 8 + 8 + 4),
        ({"sampling": "balanced", "subset": np.arange(15_000)}, 8 + 8 + 4 + 8),
    ],
)
def test_auto_counts_the_order_of_the_samples(large, monkeypatch, settings, per_sample):
    split = labeled(large[0])
    settings = {"batch_size": 64, **settings}
    monkeypatch.setattr("seit.stream.loaders.available_bytes", lambda: 2 * 30_000 * per_sample)
    assert type(loader(split, **settings)).__name__ == "ResidentLoader"
    monkeypatch.setattr("seit.stream.loaders.available_bytes", lambda: 2 * 30_000 * per_sample - 1)
    with pytest.raises(UsageError, match="is streamed"):
        loader(split, **settings)


def test_a_balanced_order_keeps_what_auto_counts(large):
    split = labeled(large[0])
    settings = {"batch_size": 64, "mode": "resident", "seed": 0}
    next(iter(loader(split, sampling="balanced", **settings)))  # compiles, reads the labels
    tracemalloc.start()
    try:
        batches = loader(split, sampling="balanced", **settings)
        next(iter(batches))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 30_000 * (split.layout.sample_bytes + 16 + 2)
    assert len(batches.order.indices(np.arange(64), 0)) == 64


@pytest.mark.parametrize(
    ("files", "room"),
    [
        ({"memory.max": "max\n", "memory.current": "5", "memory.stat": ""}, 9 * 1024),
        ({"memory.max": "4000\n", "memory.current": "1000\n", "memory.stat": "anon 1\n"}, 3000),
        (
            {
                "memory/memory.limit_in_bytes": "4000",
                "memory/memory.usage_in_bytes": "3000",
                "memory/memory.stat": "anon 1\ninactive_file 500\n",
            },
            1500,
        ),
        ({}, 9 * 1024),
    ],
)
def test_available_memory_is_that_of_the_container(tmp_path, monkeypatch, files, room):
    (tmp_path / "meminfo").write_text("MemFree: 1 kB\nMemAvailable:   9 kB\n")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    assert memory.available_bytes() == room


def test_a_stream_keeps_windows_only_and_resumes_in_its_middle(large, monkeypatch):
    split = seit.open(large[0])["train"]
    opened = []
    read = Shard.open_training
    monkeypatch.setattr(
        Shard,
        "open_training",
        lambda shard, block, rows=None: opened.append(block) or read(shard, block, rows),
    )
    settings = {"batch_size": 512, "order": "window", "mode": "streaming", "window_blocks": 2}
    batches = loader(split, **settings)
    assert isinstance(batches, StreamingLoader)
    whole = list(batches.epoch(3))
    rows = np.concatenate([batch.indices for batch in whole])
    assert len(np.unique(rows)) == len(rows) == 30_000 // 512 * 512
    batches.close()
    opened.clear()
    again = loader(split, **settings)
    batch = next(again.steps(again.resume(batches.state(3 * len(batches) + 40))))
    again.close()
    assert torch.equal(batch.tokens, whole[40].tokens)
    assert batch.indices.tolist() == whole[40].indices.tolist()
    assert len(opened) <= 6, "a resume reads a window or two, not the epoch"
