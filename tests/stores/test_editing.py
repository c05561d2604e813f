"""Stores that grow and shrink: merge, filter and delete; killed, out of space, refused."""

import errno
import fcntl
import json
import os
import shutil
import sys
from collections import Counter
from fnmatch import fnmatchcase
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from support.files import tree
from support.processes import audited
from support.stores import build_store, edit_card, record_of

import seit
from seit.errors import DamagedError, SeitError, UsageError
from seit.shards import Block, TokenLayout
from seit.shards.packed import pack
from seit.stores import (
    convert_store,
    delete_samples,
    filter_store,
    hold_out_samples,
    merge_stores,
    replace as replacing,
    verify_store,
)
from seit.stream import select
from seit.testing import blocks, write_store

FORMS = [("packed", "wds"), ("context", "wds"), ("packed", "zarr"), ("context", "zarr")]
LAYOUT = TokenLayout(grid=(2, 3), num_codes=17)


def make(path, *, codec="packed", container="wds", **options):
    """97 samples of train in three shards, and 9 of val, in blocks of 16."""
    train = (40, 40, 17) if container == "wds" else (48, 48, 1)
    return build_store(
        path,
        grid=(8, 8),
        num_codes=16,
        shards={"train": train, "val": (9,)},
        block_samples=16,
        codec=codec,
        container=container,
        with_metadata=True,
        **options,
    )


def make_keyed(path, keys, *, split="train", seed=0, metadata=None, classes=("ant",)):
    """A store of one split with the given keys."""
    tokens = np.random.default_rng(seed).integers(17, size=(len(keys), 2, 3)).astype(np.uint16)
    labels = (np.arange(len(keys)) % (len(classes) + 1) - 1).astype(np.int32)
    block = Block(tokens, labels, tuple(keys), tuple(metadata) if metadata else None)
    write_store(path, {split: block}, LAYOUT, classes=classes, block_samples=4)
    return path


def samples_of(path):
    """(split, key) → (class name, metadata, ids) of all samples of an intact store, in order."""
    verification = verify_store(path)
    assert verification.ok, verification.damage
    store = seit.open(path)
    return {
        (name, sample.key): (
            store.classes[sample.label] if sample.label >= 0 else None,
            sample.metadata,
            sample.tokens.tolist(),
        )
        for name, split in store.items()
        for sample in split
    }


def keys_of(path):
    return [key for _, key in samples_of(path)]


def add_file(path, name, data):
    """Put a file into a store, and have the card name it."""
    (path / name).write_bytes(data)
    record = record_of(path, name)

    def change(body):
        body["files"] = [entry for entry in body["files"] if entry["file"] != name]
        body["files"].append({"file": name, "bytes": record.bytes, "sha256": record.sha256})
        if name == "skipped.jsonl":
            body["skipped"] = data.count(b"\n")

    edit_card(path, change)


def only(folder, *names):
    return sorted(entry.name for entry in folder.iterdir()) == sorted(names)


# ---------------------------------------------------------------------------------------- delete


@pytest.mark.parametrize(("codec", "container"), FORMS)
def test_delete_leaves_all_other_samples_as_they_were(tmp_path, codec, container):
    path = tmp_path / "store"
    make(path, codec=codec, container=container)
    before = samples_of(path)
    gone = [("train", "train/bilder/ü3.jpg"), ("train", "train/bilder/ü95.jpg")]
    result = delete_samples(path, [key for _, key in gone])
    after = samples_of(path)
    assert after == {place: value for place, value in before.items() if place not in gone}
    assert list(after) == [place for place in before if place not in gone]
    assert (result.samples, result.skipped, result.remaining) == (2, 0, len(before) - 2)
    store = seit.open(path)
    assert result.bytes == store.num_bytes == sum(map(len, tree(path).values()))
    assert (store.card.codec, store.card.container) == (codec, container)
    assert store.card.source_bytes == 12345 * (len(before) - 2) // len(before)
    assert only(tmp_path, "store")


def test_delete_rewrites_only_shards_that_hold_a_sample(tmp_path):
    path = tmp_path / "store"
    make(path, codec="context")
    inodes = {file: (path / file).stat().st_ino for file in tree(path)}
    result = delete_samples(path, ["train/bilder/ü41.jpg"])
    assert result.rewritten == 1
    changed = {file for file in tree(path) if (path / file).stat().st_ino != inodes[file]}
    assert changed == {"train/00001.tar", "train/blocks.index", "store.json"}


def test_nothing_of_a_deleted_sample_is_left(tmp_path):
    path = tmp_path / "store"
    columns = make(path)["train"]
    lines = [
        json.dumps({"key": key, "split": "train", "reason": f"{key} is broken"}) + "\n"
        for key in ("broken.jpg", "broken.jpg#v0", "other.jpg")
    ]
    add_file(path, "skipped.jsonl", "".join(lines).encode())
    (path / ".tokenize" / "done").mkdir(parents=True)
    (path / ".tokenize" / "done" / "train-00000.json").write_text(columns.keys[5])
    (path / "train" / "00007.tar.partial").write_bytes(b"part of a shard")
    packed = pack(columns.tokens[5].reshape(1, 64), 4).tobytes()
    assert any(packed in data for data in tree(path).values())
    result = delete_samples(path, [columns.keys[5], "broken.jpg"])
    assert (result.samples, result.skipped) == (1, 2)
    files = tree(path)
    assert not any(packed in data for data in files.values())
    assert files["skipped.jsonl"].decode() == lines[2]
    card = seit.open(path).card
    assert set(files) == {"store.json", *(record.file for record in card.records)}
    assert card.skipped == 1
    assert columns.keys[5] not in keys_of(path)
    assert only(tmp_path, "store")


@pytest.mark.parametrize(
    ("modality", "taken", "others"),
    [
        ("audio", ["a", "a#0", "a#17", "c#1"], ["a#v1", "a#x", "a#", "b#0", "aa#0"]),
        # Images have views, but no windows: pages of a tar may be named like ones.
        ("image", ["a", "a#v0", "a#v17", "c#1"], ["a#0", "a#17", "a#vx", "a#v", "b#v0", "c"]),
    ],
)
def test_a_key_stands_for_its_windows_or_views(tmp_path, modality, taken, others):
    path = make_keyed(tmp_path / "store", [*taken, *others])
    edit_card(path, lambda card: card["tokenizer"].update(modality=modality))
    filter_store(path, tmp_path / "some", keys=["a", "c#1"])
    assert keys_of(tmp_path / "some") == taken
    result = delete_samples(path, ["a", "c#1"])
    assert result.samples == len(taken)
    assert keys_of(path) == others


def test_missing_keys_are_named_and_nothing_is_changed(tmp_path):
    path = make_keyed(tmp_path / "store", ["a", "b"])
    before = tree(path)
    with pytest.raises(UsageError, match="no sample of the key 'x', 'y'; correct the list"):
        delete_samples(path, ["y", "a", "x"])
    with pytest.raises(UsageError, match="and 3 more"):
        delete_samples(path, [f"x{number}" for number in range(8)])
    assert tree(path) == before
    nothing = delete_samples(path, ["x"], missing="ok")
    assert (nothing.samples, nothing.missing, nothing.rewritten) == (0, 1, 0)
    assert tree(path) == before
    result = delete_samples(path, ["x", "a"], missing="ok")
    assert (result.samples, result.missing, result.remaining) == (1, 1, 1)
    assert only(tmp_path, "store")


@pytest.mark.parametrize("container", ["wds", "zarr"])
def test_all_samples_of_a_split_may_go(tmp_path, container):
    path = tmp_path / "store"
    columns = make(path, container=container)
    delete_samples(path, columns["val"].keys)
    assert len(seit.open(path)["val"]) == 0
    assert keys_of(path) == columns["train"].keys
    delete_samples(path, columns["train"].keys)
    assert keys_of(path) == []
    assert seit.open(path).card.source_bytes == 0


def test_refit_codes_all_samples_anew(tmp_path):
    path, other = tmp_path / "store", tmp_path / "other"
    make(path, codec="context")
    shutil.copytree(path, other)
    keys = keys_of(path)[:60]
    delete_samples(path, keys, refit=True)
    delete_samples(other, keys)
    assert samples_of(path) == samples_of(other)
    assert seit.open(path).codec.tables != seit.open(other).codec.tables
    assert seit.open(path).card.job["edits"] == [
        {"delete": {"samples": 60, "skipped": 0, "refit": True}}
    ]


def test_the_card_tells_of_edits_but_not_of_keys(tmp_path):
    path = tmp_path / "store"
    make(path)
    job = dict(seit.open(path).card.job)
    delete_samples(path, ["train/bilder/ü3.jpg"])
    delete_samples(path, ["val/bilder/ü3.jpg"])
    edit = {"delete": {"samples": 1, "skipped": 0, "refit": False}}
    assert seit.open(path).card.job == {**job, "edits": [edit, edit]}
    assert "ü3" not in (path / "store.json").read_text()


def test_what_cannot_be_deleted_from_is_refused_and_stays(tmp_path):
    path = make_keyed(tmp_path / "store", ["a", "b"])
    with pytest.raises(UsageError, match="memory://store is not a folder on this machine"):
        delete_samples("memory://store", ["a"])
    with pytest.raises(UsageError, match="no store at"):
        delete_samples(tmp_path / "none", ["a"])
    with pytest.raises(UsageError, match="no keys are given"):
        delete_samples(path, [])
    (path / "notes.txt").write_text("a is my friend")
    with pytest.raises(UsageError, match=r"notes\.txt.*the card does not name"):
        delete_samples(path, ["a"])
    (path / "notes.txt").unlink()
    shutil.move(path / "train", tmp_path / "elsewhere")
    (path / "train").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is a link"):
        delete_samples(path, ["a"])
    (path / "train").unlink()
    with pytest.raises(DamagedError, match="missing"):
        delete_samples(path, ["a"])
    shutil.move(tmp_path / "elsewhere", path / "train")
    assert keys_of(path) == ["a", "b"]
    assert only(tmp_path, "store")


def test_a_second_call_and_a_running_job_are_told_of(tmp_path):
    path = make_keyed(tmp_path / "store", ["a", "b"])
    for lock, message in [
        (tmp_path / ".store.deleting" / "lock", "another call is changing"),
        (path / ".tokenize" / "lock", "a job is writing"),
    ]:
        lock.parent.mkdir()
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with pytest.raises(SeitError, match=message):
                delete_samples(path, ["a"])
    assert delete_samples(path, ["a"]).samples == 1
    assert only(tmp_path, "store")
    assert not (path / ".tokenize").exists()


def test_a_link_to_the_store_stays_a_link(tmp_path):
    make_keyed(tmp_path / "store", ["a", "b"])
    (tmp_path / "link").symlink_to("store")
    delete_samples(tmp_path / "link", ["a"])
    assert (tmp_path / "link").is_symlink()
    assert keys_of(tmp_path / "store") == ["b"]


def test_files_are_copied_where_they_cannot_be_linked(tmp_path, monkeypatch):
    path = tmp_path / "store"
    make(path)
    before = samples_of(path)

    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    delete_samples(path, ["val/bilder/ü3.jpg"])
    assert len(samples_of(path)) == len(before) - 1


MAIN_WRITES = ("os.rename", "os.link", "shutil.rmtree")
ALL_WRITES = (*MAIN_WRITES, "open", "os.remove", "os.mkdir", "os.rmdir")


@pytest.mark.parametrize(
    ("container", "exchanges", "events"),
    [
        ("wds", "yes", MAIN_WRITES),
        pytest.param("zarr", "no", MAIN_WRITES, marks=pytest.mark.slow),
        *(
            pytest.param(container, exchanges, ALL_WRITES, marks=pytest.mark.slow)
            for container in ("wds", "zarr")
            for exchanges in ("yes", "no")
        ),
    ],
)
def test_killed_at_any_moment_the_store_is_old_or_new(
    tmp_path, monkeypatch, container, exchanges, events
):
    """Ends the process, as `kill -9` does, before each of its writes; then calls again."""
    original, path = tmp_path / "original", tmp_path / "folder" / "store"
    shards = {"train": (4, 4), "val": (2,)}
    build_store(original, shards=shards, block_samples=2, container=container)
    path.parent.mkdir()
    keys = ["train/bilder/ü0.jpg", "train/bilder/ü3.jpg"]
    delete = partial(delete_samples, path, keys)
    if exchanges == "no":
        monkeypatch.setattr(replacing, "exchange_folders", lambda one, other: False)

    def state():
        if not path.exists():
            return "none"
        assert verify_store(path).ok
        return "old" if set(keys) <= set(seit.open(path)["train"].keys) else "new"

    states, died = [], True
    while died:
        moment = len(states)
        shutil.copytree(original, path)
        _, died = audited(delete, events=events, dies_before=moment)
        states.append(state())
        beside = {entry.name for entry in path.parent.glob(".store.deleting/*")}
        if died:
            refused = ""
            try:
                again = delete()
            except UsageError as error:
                refused = str(error)
            if refused:
                assert "no sample" in refused
                assert states[-1] == "new", "it had come to its end"
                assert beside <= {"lock"}
            else:
                assert (again.samples, again.remaining) == (2, 8), moment
            assert state() == "new", moment
        assert [entry.name for entry in path.parent.iterdir()] == ["store"], moment
        shutil.rmtree(path)
    assert len(states) > 8
    expected = ["old", "new"] if exchanges == "yes" else ["old", "none", "new"]
    assert list(dict.fromkeys(states)) == expected


def test_a_call_for_other_keys_ends_what_was_begun(tmp_path, monkeypatch):
    path = make_keyed(tmp_path / "store", ["a", "b", "c"])
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path, **_: path.exists() and sys.exit("stopped"))
        with pytest.raises(SystemExit):
            delete_samples(path, ["a"])
    assert not only(tmp_path, "store")
    assert keys_of(path) == ["b", "c"]
    assert delete_samples(path, ["b"]).samples == 1
    assert keys_of(path) == ["c"]
    assert only(tmp_path, "store")


def test_a_full_disk_leaves_things_as_they_were(tmp_path, monkeypatch):
    path = tmp_path / "store"
    make(path)
    before = tree(path)

    def fill(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fill)
    target = tmp_path / "new"
    for call in (
        lambda: delete_samples(path, ["train/bilder/ü3.jpg"]),
        lambda: delete_samples(path, ["train/bilder/ü3.jpg"], refit=True),
        lambda: filter_store(path, target, splits=["val"]),
        lambda: merge_stores(target, [path, path], on_duplicate="skip"),
    ):
        with pytest.raises(SeitError, match="the disk is full"):
            call()
        assert tree(path) == before
        assert only(tmp_path, "store")


# ------------------------------------------------------------------------------ two calls at once


def test_a_second_call_with_the_same_new_target_is_refused(tmp_path):
    path, target = tmp_path / "store", tmp_path / "new"
    make(path)
    before = samples_of(path)
    held = {"split": "train", "rows": np.arange(3), "name": "held"}
    calls = (
        lambda: filter_store(path, target, splits=["val"]),
        lambda: merge_stores(target, [path, path], on_duplicate="skip"),
        lambda: convert_store(path, target, codec="context", container="zarr"),
        lambda: hold_out_samples(seit.open(path), target, **held),
        lambda: convert_store(path, target),
    )
    refused = []

    def second(*_):
        for call in calls[len(refused) :]:
            with pytest.raises(SeitError, match=f"another call is writing {target} .process"):
                call()
            refused.append(call)

    filter_store(path, target, splits=["train"], progress=second)
    assert len(refused) == len(calls)
    assert samples_of(target) == {k: v for k, v in before.items() if k[0] == "train"}
    assert only(tmp_path, "store", "new")
    with pytest.raises(UsageError, match="is not empty"):
        filter_store(path, target, splits=["val"])
    assert only(tmp_path, "store", "new")


def test_what_a_killed_call_left_next_to_its_target_goes(tmp_path):
    path, work = tmp_path / "store", tmp_path / ".new.unfinished"
    make(path)
    for name in ("new/packed", "packed"):  # the second, as an earlier version left it
        (work / name).mkdir(parents=True)
        (work / name / "train-00000.tar").write_bytes(b"half")
    (work / "lock").write_text("process 1 on elsewhere")
    filter_store(path, tmp_path / "new", splits=["val"])
    assert keys_of(tmp_path / "new") == [key for name, key in samples_of(path) if name == "val"]
    assert only(tmp_path, "store", "new")


def test_a_work_folder_that_is_a_link_is_refused(tmp_path):
    path, precious = tmp_path / "store", tmp_path / "precious"
    make(path)
    (precious / "new").mkdir(parents=True)
    (precious / "new" / "thesis.txt").write_text("mine")
    (tmp_path / ".new.unfinished").symlink_to(precious)
    with pytest.raises(UsageError, match="is a link, and what it leads to would change"):
        filter_store(path, tmp_path / "new", splits=["val"])
    assert tree(precious) == {"new/thesis.txt": b"mine"}


# ----------------------------------------------------------------------------------------- merge


@st.composite
def stores(draw):
    """Two to three stores' splits and classes, with keys that differ from each other."""
    made = []
    for number in range(draw(st.integers(2, 3))):
        names = draw(st.lists(st.sampled_from(["train", "val", "test"]), unique=True, min_size=1))
        classes = draw(st.permutations(["ant", "bee", "cat"]))[: draw(st.integers(1, 3))]
        splits = {}
        for name in names:
            block = draw(blocks(LAYOUT, max_samples=9, num_classes=len(classes)))
            keys = tuple(f"{number}:{key}" for key in block.keys)
            splits[name] = Block(block.tokens, block.labels, keys, block.metadata)
        made.append((splits, classes))
    return made


@settings(max_examples=8, deadline=None)
@given(made=stores(), container=st.sampled_from(["wds", "zarr"]))
def test_a_merged_store_holds_all_samples(tmp_path_factory, made, container):
    folder = tmp_path_factory.mktemp("merge")
    expected = {}
    paths = []
    for number, (splits, classes) in enumerate(made):
        paths.append(folder / str(number))
        write_store(paths[-1], splits, LAYOUT, classes=classes, block_samples=4)
        expected |= samples_of(paths[-1])
    result = merge_stores(folder / "all", paths, container=container, codec="packed")
    assert samples_of(folder / "all") == expected
    assert result.samples == len(expected)
    store = seit.open(folder / "all")
    named = [name for _, classes in made for name in classes]
    assert list(store.classes) == list(dict.fromkeys(named))
    assert set(store) == {name for splits, _ in made for name in splits}
    for name, split in store.items():
        order = [key for splits, _ in made if name in splits for key in splits[name].keys]
        assert list(split.keys) == order
    shutil.rmtree(folder)


@pytest.mark.parametrize(("codec", "container"), FORMS)
def test_merged_stores_keep_codec_and_container(tmp_path, codec, container):
    for name in "ab":
        make(tmp_path / name, codec=codec, container=container)
    result = merge_stores(tmp_path / "all", [tmp_path / "a", tmp_path / "b"], prefix=True)
    assert result.container == container
    assert result.codec in (codec, "packed"), "so few samples may not be worth tables"
    merged = samples_of(tmp_path / "all")
    expected = samples_of(tmp_path / "a")
    for name in "ab":
        found = {
            (split, key.removeprefix(f"{name}/")): value
            for (split, key), value in merged.items()
            if key.startswith(f"{name}/")
        }
        assert found == expected
    card = seit.open(tmp_path / "all").card
    assert (card.skipped, card.source_bytes) == (2, 2 * 12345)
    lines = (tmp_path / "all" / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["a/broken.jpg", "b/broken.jpg"]
    origins = card.job["edits"][0]["merge"]
    assert [origin["job"] for origin in origins] == [seit.open(tmp_path / "a").card.job] * 2
    assert card.quality == seit.open(tmp_path / "a").card.quality
    shards = [shard.samples for shard in card.splits["train"]]
    assert shards == [194]
    assert only(tmp_path, "a", "b", "all")


def test_equal_keys_are_an_error_or_left_out(tmp_path):
    one = make_keyed(tmp_path / "one", ["a", "b", "c"])
    two = make_keyed(tmp_path / "two", ["x", "c", "b"], seed=1)
    other = make_keyed(tmp_path / "other", ["b"], split="val", seed=2)
    with pytest.raises(UsageError, match=r"one and .*two hold the key 'c' in split 'train'"):
        merge_stores(tmp_path / "all", [one, two])
    assert not (tmp_path / "all").exists()
    result = merge_stores(tmp_path / "all", [one, two, other], on_duplicate="skip")
    assert (result.samples, result.left_out) == (5, 2)
    merged = samples_of(tmp_path / "all")
    assert list(merged) == [*(("train", key) for key in "abcx"), ("val", "b")]
    assert merged["train", "b"] == samples_of(one)["train", "b"]
    with pytest.raises(UsageError, match="hold the key 'a'"):
        merge_stores(tmp_path / "again", [one, one])
    (tmp_path / "deep").mkdir()
    shutil.copytree(one, tmp_path / "deep" / "one")
    with pytest.raises(UsageError, match="are in folders named 'one'"):
        merge_stores(tmp_path / "again", [one, tmp_path / "deep" / "one"], prefix=True)


def test_sets_of_labels_in_the_middle_of_a_merged_store_count(tmp_path):
    """The first and the last block alone do not tell."""
    tokens, parts = np.zeros((9, 2, 3), np.uint16), []
    for letter in "abc":
        labels = np.full(9, -1 if letter == "b" else 0, np.int32)
        sets = ({"labels": ["ant", "bee"]},) * 9 if letter == "b" else None
        block = Block(tokens, labels, tuple(f"{letter}{n}" for n in range(9)), sets)
        parts.append(tmp_path / letter)
        write_store(parts[-1], {"train": block}, LAYOUT, classes=("ant", "bee"), block_samples=4)
    merge_stores(tmp_path / "all", parts)
    filter_store(tmp_path / "all", tmp_path / "some", patterns=["*"])
    for name in ("all", "some"):
        store = seit.open(tmp_path / name)
        assert store["train"].has_label_sets
        assert store.classes == ("ant", "bee")
        assert seit.info(store, counts=True).class_counts == {"train": (27, 9)}


def test_sets_of_labels_between_unlabeled_blocks_count(tmp_path):
    """A sorted corpus may begin and end with samples of unknown labels."""
    sets = [{"labels": ["ant", "bee"] if 4 <= n < 8 else None} for n in range(20)]
    block = Block(
        np.zeros((20, 2, 3), np.uint16),
        np.full(20, -1, np.int32),
        tuple(f"{n:02d}" for n in range(20)),
        tuple(sets),
    )
    write_store(tmp_path / "all", {"train": block}, LAYOUT, classes=("ant", "bee"), block_samples=4)
    assert seit.open(tmp_path / "all")["train"].has_label_sets
    filter_store(tmp_path / "all", tmp_path / "some", patterns=["0*"])
    some = seit.open(tmp_path / "some")
    assert some.classes == ("ant", "bee")
    assert seit.info(some, counts=True).class_counts == {"train": (4, 4)}


@pytest.mark.parametrize("write", [filter_store, convert_store, merge_stores])
def test_a_link_to_an_empty_folder_is_filled(tmp_path, write):
    path, link = make_keyed(tmp_path / "store", ["a", "b"]), tmp_path / "link"
    other = make_keyed(tmp_path / "other", ["c"])
    (tmp_path / "real").mkdir()
    link.symlink_to(tmp_path / "real")
    if write is merge_stores:
        merge_stores(link, [path, other])
    else:
        write(path, link, container="zarr")
    assert link.is_symlink()
    assert keys_of(tmp_path / "real")[:2] == ["a", "b"]
    assert only(tmp_path, "store", "other", "real", "link")


def test_what_cannot_be_merged_is_refused(tmp_path):
    one = make_keyed(tmp_path / "one", ["a"])
    twice = make_keyed(tmp_path / "twice", ["b"], classes=("crane", "crane"))
    build_store(tmp_path / "other")
    full = make_keyed(tmp_path / "full", ["z"])
    for sources, target, message in [
        ([one], "new", "two or more stores"),
        ([one, tmp_path / "other"], "new", "different tokenizers"),
        ([one, twice], "new", "two classes are named 'crane'"),
        ([one, full], "full", "not empty"),
        ([one, tmp_path / "none"], "new", "no store at"),
    ]:
        with pytest.raises(UsageError, match=message):
            merge_stores(tmp_path / target, sources)
    with pytest.raises(UsageError, match="no codec is named 'nope'"):
        merge_stores(tmp_path / "new", [one, full], codec="nope")
    same = make_keyed(tmp_path / "same", ["c"], classes=("crane", "crane"))
    assert merge_stores(tmp_path / "new", [twice, same]).classes == 2
    assert only(tmp_path, "one", "twice", "other", "full", "same", "new")


def test_merged_stores_are_entropy_coded_where_that_is_smaller(tmp_path):
    for name in "ab":
        build_store(tmp_path / name, grid=(32, 32), shards={"train": (400,)}, codec="context")
    packed = merge_stores(
        tmp_path / "packed", [tmp_path / "a", tmp_path / "b"], prefix=True, codec="packed"
    )
    coded = merge_stores(tmp_path / "coded", [tmp_path / "a", tmp_path / "b"], prefix=True)
    assert coded.codec == "context"
    assert coded.bytes < 0.8 * packed.bytes


def test_remote_stores_are_merged_and_filtered(tmp_path):
    one = make_keyed(tmp_path / "one", ["a", "b"])
    two = make_keyed(tmp_path / "two", ["c"], seed=1)
    seit.stores.copy_store(two, "memory://editing/two")
    result = merge_stores("memory://editing/all", [one, "memory://editing/two"], prefix=True)
    assert result.samples == 3
    filter_store("memory://editing/all", tmp_path / "some", patterns=["two/*"])
    assert keys_of(tmp_path / "some") == ["two/c"]


# ---------------------------------------------------------------------------------------- filter


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_filtered_store_holds_what_meets_the_conditions(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("filter")
    block = data.draw(blocks(LAYOUT, min_samples=1, max_samples=12))
    write_store(folder / "store", {"train": block}, LAYOUT, block_samples=4)
    before = samples_of(folder / "store")
    keys = data.draw(st.none() | st.lists(st.sampled_from(block.keys), min_size=1))
    pattern = data.draw(st.sampled_from(["*", "?*", "[!0-9]*", "*a*"]))
    rows = data.draw(st.none() | st.sets(st.integers(0, len(block.keys) - 1)))
    expected = {
        (name, key): value
        for row, ((name, key), value) in enumerate(before.items())
        if (keys is None or key in keys)
        and fnmatchcase(key, pattern)
        and (rows is None or row in rows)
    }
    arguments = {
        "keys": keys,
        "patterns": [pattern],
        "rows": None if rows is None else {"train": np.array(sorted(rows), dtype=np.int64)},
        "keep_classes": data.draw(st.booleans()),
    }
    if not expected:
        with pytest.raises(UsageError, match=r"no sample of .* meets the conditions"):
            filter_store(folder / "store", folder / "some", **arguments)
    else:
        result = filter_store(folder / "store", folder / "some", **arguments)
        found = samples_of(folder / "some")
        assert list(found.items()) == list(expected.items())
        assert result.left_out == len(before) - len(found)
        used = {name for name, _, _ in found.values() if name}
        classes = seit.open(folder / "some").classes
        wanted = [name for name in ("ant", "bee", "cat") if name in used]
        assert list(classes) == (["ant", "bee", "cat"] if arguments["keep_classes"] else wanted)
    shutil.rmtree(folder)


@pytest.mark.parametrize(("codec", "container"), FORMS)
def test_filtered_stores_keep_codec_and_container(tmp_path, codec, container):
    path = tmp_path / "store"
    make(path, codec=codec, container=container)
    before = samples_of(path)
    result = filter_store(path, tmp_path / "some", splits=["train"], where={"s": "é"})
    assert result.container == container
    assert result.codec in (codec, "packed"), "so few samples may not be worth tables"
    assert samples_of(tmp_path / "some") == {
        place: value
        for place, value in before.items()
        if place[0] == "train" and value[1]["s"] == "é"
    }
    assert list(seit.open(tmp_path / "some")) == ["train"]
    card = seit.open(tmp_path / "some").card
    assert card.source_bytes == 12345 * result.samples // len(before)
    (edit,) = card.job["edits"]
    assert edit["filter"]["where"] == {"s": "é"}
    assert edit["filter"]["source"] == seit.open(path).card.seal
    assert only(tmp_path, "store", "some")


def test_classes_that_are_gone_are_dropped(tmp_path):
    path = tmp_path / "store"
    make(path)
    before = seit.open(path)
    rows = {name: np.flatnonzero(split.labels == 2) for name, split in before.items()}
    filter_store(path, tmp_path / "some", rows=rows)
    some = seit.open(tmp_path / "some")
    assert some.classes == ("cat",)
    assert {int(label) for split in some.values() for label in split.labels} == {0}
    filter_store(path, tmp_path / "same", rows=rows, keep_classes=True)
    same = seit.open(tmp_path / "same")
    assert same.classes == before.classes
    assert {int(label) for split in same.values() for label in split.labels} == {2}


def test_a_class_that_a_store_lacks_is_named_with_the_nearest(tmp_path, call):
    path = tmp_path / "store"
    make(path)
    for name, hint in (("Cat", "did you mean 'cat'?"), ("lion", "it has 'ant', 'bee', 'cat'")):
        code, _, err = call("filter", path, tmp_path / "x", "--classes", name)
        assert (code, err) == (2, f"error: there is no class {name!r} in {path}; {hint}\n")


def test_merged_classes_that_are_spelled_nearly_alike_are_warned_about(tmp_path, caplog):
    for number, name in enumerate(("sea lion", "Sea_Lion")):
        build_store(tmp_path / str(number), classes=("ant", name), shards={str(number): (4,)})
    merge_stores(tmp_path / "all", [tmp_path / "0", tmp_path / "1"])
    assert seit.open(tmp_path / "all").classes == ("ant", "sea lion", "Sea_Lion")
    assert "'Sea_Lion' is nearly 'sea lion' (blanks" in caplog.text


def test_metadata_are_compared_as_text_or_json(tmp_path):
    entries = [{"n": 1}, {"n": "1"}, {"n": 1.5}, {"n": True}, {"m": 1}, {"n": None}, {"n": [1, 2]}]
    path = make_keyed(tmp_path / "store", list("abcdefg"), metadata=entries)
    for value, found in [("1", "ab"), ("1.5", "c"), ("true", "d"), ("null", "f"), ("[1, 2]", "g")]:
        filter_store(path, tmp_path / value, where={"n": value})
        assert "".join(keys_of(tmp_path / value)) == found


def test_skipped_inputs_go_with_their_split_and_key(tmp_path):
    path = tmp_path / "store"
    make(path)
    lines = [
        json.dumps({"key": key, "split": split, "reason": "x"}).encode() + b"\n"
        for key, split in [("train/a", "train"), ("val/b", "val"), ("odd", "train")]
    ]
    add_file(path, "skipped.jsonl", b"".join(lines))
    for name, arguments, kept in [
        ("one", {"splits": ["train"]}, [0, 2]),
        ("two", {"patterns": ["train/*"]}, [0]),
        ("three", {"keys": ["val/b", "val/bilder/ü1.jpg"]}, [1]),
    ]:
        result = filter_store(path, tmp_path / name, **arguments)
        assert (tmp_path / name / "skipped.jsonl").read_bytes() == b"".join(
            lines[number] for number in kept
        )
        assert result.skipped == len(kept)
    add_file(path, "skipped.jsonl", b'{"key": 1\n')
    with pytest.raises(DamagedError, match="line 1 is not a record"):
        filter_store(path, tmp_path / "four", splits=["val"])


# ---------------------------------------------------------------------------------- command line


def test_the_commands(tmp_path, call):
    make(tmp_path / "a", classes=("ant", "bee, honey", "cat"))
    make(tmp_path / "b", classes=("dog", "cat"))
    code, out, err = call(
        "merge", tmp_path / "all", tmp_path / "a", tmp_path / "b", "--prefix", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["samples"] == 212
    assert json.loads(out)["splits"] == {"train": 194, "val": 18}
    code, out, err = call(
        *("filter", tmp_path / "all", tmp_path / "some", "--split", "train"),
        *("--classes", "cat,ant", "--fraction", "0.25", "--seed", "3"),
    )
    assert code == 0, err
    assert "classes  2" in out
    split = seit.open(tmp_path / "all")["train"]
    rows = select(split, classes=["cat", "ant"], fraction=0.25, seed=3)
    assert keys_of(tmp_path / "some") == [split.keys[row] for row in rows]
    counts = Counter(name for name, _, _ in samples_of(tmp_path / "some").values())
    labels = split.labels
    assert counts == {
        name: -(-int((labels == split.classes.index(name)).sum()) // 4) for name in ("ant", "cat")
    }
    code, out, err = call("filter", tmp_path / "a", tmp_path / "honey", "--classes", "bee, honey")
    assert code == 0, err
    (tmp_path / "keys").write_text("train/bilder/ü1.jpg\r\n\nval/bilder/ü2.jpg\n")
    code, out, err = call(
        "delete", tmp_path / "a", "train/bilder/ü0.jpg", "--keys", tmp_path / "keys", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["samples"] == 3
    assert json.loads(out)["remaining"] == 103
    assert verify_store(tmp_path / "a").ok
    code, out, err = call("delete", tmp_path / "b", "val/bilder/ü0.jpg", "--refit")
    assert code == 0, err
    assert "deleted    1 sample, " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("merge", "new", "store"), "two or more stores"),
        (("filter", "store", "new", "--fraction", "0.5", "--key-pattern", "*"), "--fraction is of"),
        (("filter", "store", "new", "--fraction", "2"), "fraction is 2.0"),
        (("filter", "store", "new", "--classes", "nope"), "no class 'nope'"),
        (("filter", "store", "new", "--split", "nope"), "no split 'nope'"),
        (("filter", "store", "new", "--where", "nope"), "expected FIELD=VALUE"),
        (("filter", "store", "new", "--keys", "none.txt"), "none.txt cannot be read"),
        (("filter", "store", "new", "--keys", "keys"), "no sample of the key 'x'"),
        (("filter", "store", "store"), "not empty"),
        (("delete", "store"), "no keys are given"),
        (("delete", "store", "x"), "no sample of the key 'x'"),
        (("delete", "store", "--keys", "latin"), "latin is not UTF-8"),
    ],
)
def test_wrong_usage_is_one_line_and_changes_nothing(
    tmp_path, call, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    make_keyed(tmp_path / "store", ["a", "b"])
    (tmp_path / "keys").write_text("a\nx\n")
    (tmp_path / "latin").write_bytes(b"\xff\n")
    before = tree(tmp_path)
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err
    assert tree(tmp_path) == before
