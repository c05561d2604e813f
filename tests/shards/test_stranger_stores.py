"""Stores from strangers: names that lead elsewhere, links, pipes, sizes of what is not there."""

import dataclasses
import hashlib
import os
import shutil
import time
import tracemalloc

import numpy as np
import pytest
from support.stores import build_store, edit_card

import seit
from seit.analysis.duplicates.search import find_duplicates
from seit.documents import read_plain
from seit.errors import DamagedError, SeitError, UsageError
from seit.files import create_file, inside, write_atomically
from seit.ingest.sources import list_corpus
from seit.ingest.workspace import Workspace
from seit.shards import LocalFolder, ShardWriter
from seit.shards.codecs import PackedCodec
from seit.shards.names import check_split_names, is_inner_path, is_split_name
from seit.stores import convert_store, delete_samples, filter_store, merge_stores, verify_store
from seit.stores.replace import locked

HOSTILE_NAMES = [
    "",
    ".",
    "..",
    "/etc",
    "../x",
    "a/b",
    ".x",
    "a\\b",
    "C:x",
    "a\nb",
    "a\x1bb",
    "x\x9b",
]


def make(path, **options):
    return build_store(
        path, grid=(4, 4), num_codes=16, block_samples=16, with_metadata=True, **options
    )


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def content_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


# Names


@pytest.mark.parametrize(
    "name", ["train", "fold-3", "Fold 1", "bébé", "鳥", "a.b", "x" * 240, "~", "-"]
)
def test_plain_names_are_taken(name):
    assert is_split_name(name)
    assert is_inner_path(f"{name}/00000.tar")
    check_split_names([name])


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, "x" * 241, "ü" * 121, "a\ud800"])
def test_other_names_are_refused(name):
    assert not is_split_name(name)
    with pytest.raises(UsageError, match="cannot name a split"):
        check_split_names(["train", name])
    if name and "/" not in name.strip("."):
        assert len(name) > 100 or not is_inner_path(f"train/{name}")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train", "Train"], "'train' and 'Train' would share a folder"),
        (["caf\u00e9", "cafe\u0301"], "would share a folder"),
        (["Store.JSON"], "a store has a file of that name"),
        (["skipped.jsonl"], "a store has a file of that name"),
    ],
)
def test_names_that_collide_are_refused_for_new_stores(names, message):
    with pytest.raises(UsageError, match=message):
        check_split_names(names)


def test_a_card_cannot_lead_a_writer_to_another_store(tmp_path):
    """Each of these wrote over the victim's shards, or elsewhere outside OUT."""
    make(tmp_path / "victim")
    make(tmp_path / "plain")
    before = content_of(tmp_path / "victim")
    evil, out = tmp_path / "evil", tmp_path / "out"
    writers = (
        lambda: filter_store(evil, out, patterns=["*"]),
        lambda: merge_stores(out, [tmp_path / "plain", evil], prefix=True),
        lambda: convert_store(evil, out, container="zarr"),
        lambda: convert_store(evil, out, container="official"),
        lambda: convert_store(evil, out),
        lambda: delete_samples(evil, ["train/bilder/ü3.jpg"]),
    )
    for name in (str(tmp_path / "victim" / "train"), "../victim/train", "../../victim/train"):
        make(evil)
        edit_card(evil, lambda body, name=name: rename_split(body, "train", name))
        for write in writers:
            with pytest.raises(DamagedError, match=r"store\.json is damaged .*not a plain name"):
                write()
        assert not verify_store(evil).ok
        shutil.rmtree(evil)
    assert content_of(tmp_path / "victim") == before
    assert names_in(tmp_path) == ["plain", "victim"]


def rename_split(body, old, new):
    body["splits"] = {new if name == old else name: entry for name, entry in body["splits"].items()}


def test_splits_that_differ_in_case_alone_open_and_are_not_written_anew(tmp_path):
    make(tmp_path / "old", shards={"fold": (20,), "Fold": (20,)})
    assert list(seit.open(tmp_path / "old")) == ["fold", "Fold"]
    assert verify_store(tmp_path / "old").ok
    with pytest.raises(UsageError, match="'fold' and 'Fold' would share a folder"):
        convert_store(tmp_path / "old", tmp_path / "new", container="zarr")
    with pytest.raises(UsageError, match="'fold' and 'Fold' would share a folder"):
        filter_store(tmp_path / "old", tmp_path / "new")
    filter_store(tmp_path / "old", tmp_path / "new", splits=["Fold"])
    assert list(seit.open(tmp_path / "new")) == ["Fold"]
    assert convert_store(tmp_path / "old", tmp_path / "copy").samples == 40


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (("fold", "Fold"), "would share a folder"),
        (("train", "store.json"), "a store has a file of that name"),
        (("train", ".x"), "expected train, val, test or another plain word"),
    ],
)
def test_a_manifest_cannot_name_such_splits(tmp_path, splits, message):
    rows = "".join(f"{number}.jpg,{split}\n" for number, split in enumerate(splits))
    (tmp_path / "list.csv").write_text(f"path,split\n{rows}")
    for number in range(len(splits)):
        (tmp_path / f"{number}.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match=message):
        list_corpus(tmp_path / "list.csv")


def test_deleting_from_a_split_keeps_the_index_of_one_named_like_its_group(tmp_path):
    make(tmp_path / "s", shards={"a": (20,), "a.zarr": (20,)})
    delete_samples(tmp_path / "s", [seit.open(tmp_path / "s")["a"].keys[0]])
    files = {record.file for record in seit.open(tmp_path / "s").card.files}
    assert {"a/blocks.index", "a.zarr/blocks.index"} <= files
    assert verify_store(tmp_path / "s").ok


# Writers, by construction


@pytest.mark.parametrize("name", ["", "/x", "../x", "a/../../x", "a\0b"])
def test_no_folder_writes_elsewhere(tmp_path, name):
    (tmp_path / "source").write_bytes(b"x")
    folder = LocalFolder(tmp_path / "folder")
    with pytest.raises(UsageError, match="is outside"):
        folder.write(name, b"x")
    with pytest.raises(UsageError, match="is outside"):
        folder.upload(name, tmp_path / "source", sha256=hashlib.sha256(b"x").hexdigest())
    with pytest.raises(UsageError, match="is outside"):
        folder.remove(name)
    assert names_in(tmp_path) == ["source"]


def test_a_remote_folder_writes_nowhere_else():
    for name in ("../x", "/x", "a/../../x"):
        with pytest.raises(UsageError, match="is outside"):
            seit.shards.open_folder("memory://stranger/store").write(name, b"x")


def test_a_shard_is_written_into_its_store_alone(tmp_path):
    make(tmp_path / "s")
    codec = PackedCodec(seit.open(tmp_path / "s").card.layout)
    for name in HOSTILE_NAMES:
        with pytest.raises(UsageError, match="cannot name a split"):
            ShardWriter(tmp_path / "new", split=name, index=0, codec=codec)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "train").symlink_to(tmp_path / "s" / "train")
    with pytest.raises(UsageError, match="is a link"):
        ShardWriter(tmp_path / "new", split="train", index=0, codec=codec)
    assert verify_store(tmp_path / "s").ok


def test_a_repair_goes_through_no_link(tmp_path):
    make(tmp_path / "copy")
    make(tmp_path / "victim")
    make(tmp_path / "s")
    before = content_of(tmp_path / "victim")
    shutil.rmtree(tmp_path / "s" / "train")
    (tmp_path / "s" / "train").symlink_to(tmp_path / "victim" / "train")
    lost = tmp_path / "victim" / "train" / "00000.tar"
    lost.write_bytes(b"my own")
    found = verify_store(tmp_path / "s", repair_from=tmp_path / "copy")
    assert lost.read_bytes() == b"my own"
    assert any("is a link" in entry.reason for entry in found.damage)
    lost.write_bytes(before["train/00000.tar"])
    assert content_of(tmp_path / "victim") == before


def test_a_link_of_the_temporary_name_is_replaced(tmp_path):
    """A stranger's folder holds `store.json.partial`, a link to a file of the user's, or a pipe."""
    mine = tmp_path / "mine"
    mine.write_bytes(b"my own")
    (tmp_path / "a.partial").symlink_to(mine)
    write_atomically(tmp_path / "a", b"new")
    (tmp_path / "b.partial").symlink_to(mine)
    (tmp_path / "source").write_bytes(b"x")
    LocalFolder(tmp_path).upload("b", tmp_path / "source", sha256=hashlib.sha256(b"x").hexdigest())
    os.mkfifo(tmp_path / "c.partial")
    write_atomically(tmp_path / "c", b"new")
    with create_file(tmp_path / "d") as file:
        file.write(b"d")
    assert mine.read_bytes() == b"my own"
    assert [(tmp_path / name).read_bytes() for name in "abcd"] == [b"new", b"x", b"new", b"d"]
    assert not any((tmp_path / name).is_symlink() for name in "abc")
    assert inside(tmp_path, "x/y") == tmp_path / "x" / "y"


def test_a_card_that_is_a_link_is_replaced_when_it_is_restored(tmp_path):
    make(tmp_path / "copy")
    make(tmp_path / "s")
    (tmp_path / "mine").write_bytes(b"my own")
    (tmp_path / "s" / "store.json").unlink()
    (tmp_path / "s" / "store.json").symlink_to(tmp_path / "mine")
    assert verify_store(tmp_path / "s", repair_from=tmp_path / "copy").repaired == ("store.json",)
    assert (tmp_path / "mine").read_bytes() == b"my own"
    assert verify_store(tmp_path / "s").ok


@pytest.mark.parametrize("name", ["", "done", "lock"])
def test_a_job_works_in_no_folder_elsewhere(tmp_path, name):
    """With --overwrite it would remove what STORE/.tokenize leads to."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "x").write_bytes(b"my own")
    place = tmp_path / "store" / ".tokenize" / name
    place.parent.mkdir(parents=True)
    place.symlink_to(mine / "lock" if name == "lock" else mine)
    workspace = Workspace(tmp_path / "store", staged=False)
    with pytest.raises(UsageError, match=r"is a link|cannot be written"), workspace.locked():
        pytest.fail("the link was followed")
    assert content_of(mine) == {"x": b"my own"}


def test_no_lock_beside_a_store_leads_elsewhere(tmp_path):
    make(tmp_path / "s")
    (tmp_path / "mine" / "new").mkdir(parents=True)
    (tmp_path / ".s.deleting").symlink_to(tmp_path / "mine")
    with (
        pytest.raises(UsageError, match="is a link"),
        locked(tmp_path / ".s.deleting", tmp_path / "s"),
    ):
        pytest.fail("the link was followed")
    with pytest.raises(UsageError, match="is a link"):
        delete_samples(tmp_path / "s", ["a"])
    assert names_in(tmp_path / "mine") == ["new"]


# Pipes and devices


@pytest.mark.parametrize(
    "name", ["store.json", "codebook.safetensors", "train/blocks.index", "train/00000.tar"]
)
def test_a_pipe_or_device_in_place_of_a_file_holds_nobody_up(tmp_path, name):
    started = time.monotonic()
    for number, put in enumerate([os.mkfifo, lambda path: path.symlink_to("/dev/zero")]):
        store = tmp_path / f"s{number}"
        make(store)
        (store / name).unlink()
        put(store / name)
        with pytest.raises(SeitError):
            read_all(seit.open(store))
        with pytest.raises(SeitError):
            convert_store(store, tmp_path / "out")
        with pytest.raises(SeitError):
            delete_samples(store, ["x"])
        if name != "store.json":
            assert not verify_store(store).ok
    assert time.monotonic() - started < 10


def read_all(store):
    _ = store.codebook
    for split in store.values():
        _ = split.labels, split.keys, split.packed()


def test_records_of_a_job_may_be_anything(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "large").write_bytes(bytes(11))
    for name in ("pipe", "zero", "large", "none"):
        with pytest.raises((OSError, ValueError), match=r"regular|larger|No such"):
            read_plain(tmp_path / name, max_bytes=10)
    assert read_plain(tmp_path / "large", max_bytes=11) == bytes(11)
    (tmp_path / "store" / ".tokenize").mkdir(parents=True)
    os.mkfifo(tmp_path / "store" / ".tokenize" / "job.json")
    assert Workspace(tmp_path / "store", staged=False).read_job() == {}


# Sizes of what is not there


@pytest.fixture(scope="module")
def bomb(tmp_path_factory):
    """A card of 200 shards of 65,536 blocks each that are not there: 13 billion samples."""
    path = tmp_path_factory.mktemp("bomb") / "store"
    make(path, shards={"train": (20,), "val": (20,)})
    card = seit.open(path).card
    record = card.splits["train"][0]
    shards = tuple(
        dataclasses.replace(
            record, file=f"train/{number:07d}.tar", samples=65_536 * 1024, bytes=1 << 49
        )
        for number in range(200)
    )
    splits = {"train": shards, "val": card.splits["val"]}
    dataclasses.replace(card, splits=splits, block_samples=1024).write(path)
    return path


BOMB_USES = {
    "sample": lambda split: split[0],
    "labels": lambda split: split.labels,
    "keys": lambda split: split.keys,
    "rows": lambda split: split.rows,
    "packed": lambda split: split.packed(),
    "tokens": lambda split: split.tokens[:],
    "iteration": lambda split: next(iter(split)),
    "blocks": lambda split: split.block_sizes,
    "resident": lambda split: seit.loader(split, batch_size=2, mode="resident"),
    "streaming": lambda split: seit.loader(split, batch_size=2, order="window"),
}


def limited(action, *, most_bytes):
    tracemalloc.start()
    try:
        result = action()
        assert tracemalloc.get_traced_memory()[1] < most_bytes
    finally:
        tracemalloc.stop()
    return result


def refuse(action):
    with pytest.raises(DamagedError):
        action()


@pytest.mark.parametrize("use", BOMB_USES)
def test_a_promise_of_a_card_takes_no_memory(bomb, use):
    split = seit.open(bomb)["train"]
    limited(lambda: refuse(lambda: BOMB_USES[use](split)), most_bytes=1 << 21)


def test_operations_on_such_a_store_take_no_memory(bomb, tmp_path):
    for operation in (
        lambda: filter_store(bomb, tmp_path / "out", patterns=["*"]),
        lambda: filter_store(bomb, tmp_path / "out", splits=["train"]),
        lambda: merge_stores(tmp_path / "out", [bomb, bomb], on_duplicate="skip"),
        lambda: convert_store(bomb, tmp_path / "out", container="zarr"),
        lambda: convert_store(bomb, tmp_path / "out", codec="context"),
        lambda: convert_store(bomb, tmp_path / "out"),
        lambda: find_duplicates(seit.open(bomb)),
    ):
        limited(lambda operation=operation: refuse(operation), most_bytes=1 << 24)
    report = limited(lambda: verify_store(bomb), most_bytes=1 << 24)
    assert len(report.damage) >= 200


def test_a_card_cannot_promise_more_than_its_shards_hold(tmp_path):
    for codec, samples, least in (("packed", 400, 3200), ("context", 1000, 6000)):
        make(tmp_path / codec, codec=codec, shards={"train": (20,)})

        def grow(body, samples=samples, least=least):
            shard = body["splits"]["train"]["shards"][0]
            shard["samples"] = body["splits"]["train"]["samples"] = samples
            shard["bytes"] = least - 1
            body["block_samples"] = 1 << 16

        edit_card(tmp_path / codec, grow)
        with pytest.raises(DamagedError, match=f"{samples} samples do not fit"):
            seit.open(tmp_path / codec)


def test_a_card_of_zarr_cannot_promise_chunks_that_are_left_out(tmp_path):
    build_store(tmp_path / "s", codec="context", container="zarr", shards={"train": (20,)})

    def grow(body):
        shard = body["splits"]["train"]["shards"][0]
        shard["samples"] = body["splits"]["train"]["samples"] = 1 << 28
        body["block_samples"] = 1 << 16

    edit_card(tmp_path / "s", grow)
    with pytest.raises(DamagedError, match="268435456 samples do not fit"):
        seit.open(tmp_path / "s")


def test_an_index_that_is_large_is_read_a_shard_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("seit.shards.index._MAX_WHOLE_BYTES", 0)
    make(tmp_path / "s", shards={"train": (40, 0, 40), "val": (20,)})
    whole = seit.open(tmp_path / "s")
    assert len(np.unique(whole["train"].keys)) == 80
    assert verify_store(tmp_path / "s").ok


def test_more_blocks_than_believed_are_asked_of_the_shards(tmp_path, monkeypatch):
    make(tmp_path / "s", shards={"train": (40, 24)})
    expected = seit.open(tmp_path / "s")["train"].block_sizes.tolist()
    monkeypatch.setattr("seit.shards.split._UNSEEN_BLOCKS", 1)
    monkeypatch.setattr("seit.shards.split._UNSEEN_BYTES", 0)
    split = seit.open(tmp_path / "s")["train"]
    assert split.block_sizes.tolist() == expected == [16, 16, 8, 16, 8]
    assert len(split.packed()) == len(split.tokens[:]) == len(split.rows) == 64
    (tmp_path / "s" / "train" / "00001.tar").unlink()
    with pytest.raises(DamagedError, match=r"00001\.tar cannot be read"):
        seit.open(tmp_path / "s")["train"].packed()


def test_opening_takes_time_by_the_size_of_the_card(tmp_path):
    """Looking for a file once a split took 20,000 × 80,000 steps."""
    path = tmp_path / "s"
    make(path, container="zarr", shards={"train": (8,)})
    card = seit.open(path).card
    empty = {f"s{number}": () for number in range(2000)}
    document = card.files[0]
    files = [
        dataclasses.replace(document, file=f"{name}.zarr/{part}")
        for name in empty
        for part in ("zarr.json", "tokens/zarr.json", "labels/zarr.json", "keys/zarr.json")
    ]
    dataclasses.replace(card, splits={**card.splits, **empty}, files=(*card.files, *files)).write(
        path
    )
    started = time.process_time()
    assert len(seit.open(path)) == 2001
    assert time.process_time() - started < 2
