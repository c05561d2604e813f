"""Cards of very many shards: the same text, in little memory."""

import json
import pickle
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from support.stores import build_store

import seit
from seit.shards import FileRecord, ShardRecord, read_card

NUM_SHARDS = 5000


def large_card(path):
    build_store(path, shards={"train": (1,)})
    card = read_card(path)
    shards = tuple(
        ShardRecord(f"träin/{n:06d}.tar", 10_506_240, f"{n:064x}", 8192) for n in range(NUM_SHARDS)
    )
    files = (*card.files, *(FileRecord(f"o/{n}", n, f"{n:064x}") for n in range(2000)))
    return replace(
        card, splits={"träin": shards, "val": ()}, files=files, job={"a": [1, {"b": ""}]}
    )


def test_the_text_is_that_of_the_json_module(tmp_path):
    card = large_card(tmp_path)
    text = card.to_text()
    body = json.loads(text)
    assert json.dumps(body, indent=2, ensure_ascii=False) + "\n" == text
    assert body["splits"]["val"] == {"samples": 0, "shards": []}
    assert body["splits"]["träin"]["samples"] == NUM_SHARDS * 8192
    assert card.num_bytes == len(text.encode())
    assert body["sha256"] == card.seal


@pytest.mark.parametrize(
    "change",
    [{"splits": {}, "files": ()}, {"classes": ()}, {"job": {}, "quality": {"psnr_db": 1e-7}}],
)
def test_empty_parts_are_written_as_the_json_module_does(tmp_path, change):
    text = replace(large_card(tmp_path), **change).to_text()
    assert json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n" == text


def test_a_card_takes_less_memory_than_four_of_its_texts(tmp_path):
    card = large_card(tmp_path)
    card.write(tmp_path)
    tracemalloc.start()
    try:
        found = read_card(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == card
    assert found.seal == card.seal
    assert peak < 4 * card.num_bytes


def test_shards_are_made_when_asked_for_and_travel(tmp_path):
    large_card(tmp_path).write(tmp_path)
    shards = seit.open(tmp_path)["träin"].shards
    assert len(shards) == NUM_SHARDS
    assert shards[-1].record.file == f"träin/{NUM_SHARDS - 1:06d}.tar"
    assert shards[7] is shards[7]
    assert [shard.first_row for shard in shards[2:4]] == [2 * 8192, 3 * 8192]
    with pytest.raises(IndexError):
        shards[NUM_SHARDS]
    copied = pickle.loads(pickle.dumps(shards))
    assert copied[3].rows_of(1) == range(3 * 8192 + 1024, 3 * 8192 + 2048)
    assert len({id(shard) for shard in shards}) > 1


def test_block_sizes_of_uneven_shards(tmp_path):
    build_store(tmp_path, shards={"train": (8, 3, 5, 12)}, block_samples=5)
    split = seit.open(tmp_path)["train"]
    expected = [shard.samples_of(block) for shard, block in split.blocks()]
    assert split.block_sizes.tolist() == expected == [5, 3, 3, 5, 5, 5, 2]
    places = [split.block_at(number) for number in range(7)]
    assert [(shard.number, block) for shard, block in places] == [
        *((0, 0), (0, 1), (1, 0), (2, 0), (3, 0), (3, 1), (3, 2))
    ]


def test_keys_are_read_where_asked_for(tmp_path):
    columns = build_store(tmp_path, shards={"train": (8, 3, 5, 12)}, block_samples=5)["train"]
    split = seit.open(tmp_path)["train"]
    rows = np.array([27, 0, 8, 8, 13, 1])
    assert split.read_keys(rows) == [columns.keys[row] for row in rows]
    assert split.read_keys(rows[:0]) == []
