"""Stores that change under a reader: it reads what it opened, or raises; never a wrong sample."""

import multiprocessing
import os
import shutil
from contextlib import suppress

import fsspec
import numpy as np
import pytest
import torch
from support.stores import build_store
from torch.utils.data import DataLoader

import seit
from seit.errors import ChangedError, SeitError, UsageError
from seit.shards import BlockDecoder
from seit.shards.blocks import MEMBER_SUFFIXES
from seit.shards.folders import LocalFolder, RemoteFolder
from seit.stores import (
    convert_store,
    copy_store,
    delete_samples,
    filter_store,
    merge_stores,
    verify_store,
)
from seit.stream import TokenDataset, loader

KINDS = [("packed", "wds"), ("packed", "zarr"), ("context", "wds")]
COUNTS = {"train": (40, 40, 16), "val": (24,)}
OPTIONS = {"grid": (6, 5), "block_samples": 8, "with_metadata": True}


def build(path, codec="packed", container="wds", *, seed=0, **options):
    """A store; of another seed one of the same sizes, keys and codec tables, of other tokens."""
    return build_store(
        path, shards=COUNTS, codec=codec, container=container, seed=seed, **OPTIONS | options
    )


@pytest.fixture(params=KINDS, ids="-".join)
def kind(request):
    return request.param


@pytest.fixture
def path(tmp_path, kind):
    build(tmp_path / "store", *kind)
    return tmp_path / "store"


def delete(path):
    """The shards and blocks that follow the first sample are cut otherwise."""
    delete_samples(path, ["train/bilder/ü0.jpg"])


def exchange(path):
    """Another store of the same sizes takes its place by two renames."""
    card = seit.open(path).card
    build(path.with_name("other"), card.codec, card.container, seed=1)
    path.rename(path.with_name("gone"))
    path.with_name("other").rename(path)


def overwrite(path):
    """Another store is written into the same folder, as a job does: the card comes last."""
    card = seit.open(path).card
    (path / "store.json").unlink()
    for entry in path.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    build(path, card.codec, card.container, seed=1)


def empty(path):
    """The state in the middle of a job: other shards are there, and no card yet."""
    overwrite(path)
    (path / "store.json").unlink()


CHANGES = [delete, exchange, overwrite, empty]


def looks(split):
    """What a reader asks for: name → call."""
    store = split.store
    return {
        **{f"tokens[{i}]": lambda i=i: split.tokens[i] for i in range(0, len(split), 5)},
        "tokens[:]": lambda: split.tokens[:],
        "iterated tokens": lambda: np.stack(list(split.tokens)),
        "labels": lambda: split.labels,
        "keys": lambda: split.keys,
        "sample": lambda: {**vars(split[41]), "store": None},
        "samples": lambda: [{**vars(sample), "store": None} for sample in split],
        "packed": split.packed,
        "codebook": lambda: store.codebook,
        "tables": lambda: store.tables,
        "codec": lambda: store.codec.tables,
        "skipped": lambda: store.read_listed("skipped.jsonl"),
    }


def same(found, expected):
    if isinstance(found, np.ndarray):
        return np.array_equal(found, expected)
    if isinstance(found, dict):
        return found.keys() == expected.keys() and all(same(found[k], expected[k]) for k in found)
    if isinstance(found, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return found == expected


def check(split, truth):
    """All that is asked of a split is the truth or a ``ChangedError``; the number of errors."""
    errors = 0
    for name, look in looks(split).items():
        try:
            found = look()
        except ChangedError:
            errors += 1
        else:
            assert same(found, truth[name]), name
    return errors


def truth_of(path):
    return {name: look() for name, look in looks(seit.open(path)["train"]).items()}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("touched", ["nothing", "labels", "tokens"])
def test_a_reader_gets_what_it_opened_or_an_error(path, change, touched):
    truth = truth_of(path)
    store = seit.open(path)
    if touched != "nothing":
        _ = store["train"].labels
    if touched == "tokens":
        _ = store["train"].tokens[3], store.codec
    change(path)
    assert check(store["train"], truth) > 20
    with pytest.raises(ChangedError):
        _ = store["val"].labels
    if change is not empty:
        assert verify_store(path).ok
        assert not same(truth_of(path)["tokens[:]"], truth["tokens[:]"])


@pytest.mark.parametrize("options", [{"indexed": False}, {"on_damage": "skip"}])
def test_it_is_no_damage(tmp_path, options):
    build(tmp_path / "store", indexed=options.pop("indexed", True))
    truth = truth_of(tmp_path / "store")
    split = seit.open(tmp_path / "store", **options)["train"]
    overwrite(tmp_path / "store")
    assert check(split, truth) > 20


def test_a_store_that_is_put_back_is_read_again(path):
    truth = truth_of(path)
    split = seit.open(path)["train"]
    exchange(path)
    assert check(split, truth)
    path.rename(path.with_name("second"))
    path.with_name("gone").rename(path)
    assert not check(split, truth)
    shutil.copytree(path, path.with_name("copy"))
    shutil.rmtree(path)
    path.with_name("copy").rename(path)
    (path / "note.txt").write_text("another entry of the folder is no other store")
    assert not check(split, truth)


@pytest.mark.parametrize("moment", ["before", "after", "both"])
def test_no_moment_of_a_change_gives_another_sample(tmp_path, monkeypatch, moment):
    """The store is exchanged right before or after the bytes are read, or there and back."""
    path, other = tmp_path / "store", tmp_path / "other"
    build(path)
    build(other, seed=1)
    truth = truth_of(path)
    split = seit.open(path)["train"]
    read, busy, calls = LocalFolder.read, [], []

    def swap():
        path.rename(tmp_path / "aside")
        other.rename(path)
        (tmp_path / "aside").rename(other)

    def race(self, name, offset=0, size=None):
        if busy or not name.startswith("train/0"):
            return read(self, name, offset, size)
        calls.append(name)
        busy.append(True)
        if moment != "after" and len(calls) == 3:
            swap()
        data = read(self, name, offset, size)
        if moment != "before" and len(calls) == 3:
            swap()
        busy.clear()
        return data

    monkeypatch.setattr(LocalFolder, "read", race)
    outcomes = []
    for number in range(0, 96, 8):
        try:
            outcomes.append(np.array_equal(split.tokens[number], truth["tokens[:]"][number]))
        except ChangedError:
            outcomes.append(None)
    assert False not in outcomes
    assert outcomes.count(None) == (0 if moment == "both" else 10)


@pytest.mark.parametrize("is_old", [False, True])
def test_a_card_with_the_stamp_of_another_is_looked_into_while_it_is_young(
    tmp_path, monkeypatch, is_old
):
    build(tmp_path / "store")
    stamp = LocalFolder(tmp_path / "store").stamp("store.json")
    monkeypatch.setattr(LocalFolder, "stamp", lambda *_: stamp)
    later = stamp.changed_ns + (10**10 if is_old else 10**9)
    monkeypatch.setattr("time.time_ns", lambda: later)
    split = seit.open(tmp_path / "store")["train"]
    _ = split.tokens[0]
    overwrite(tmp_path / "store")
    if is_old:  # file systems give no such stamp twice
        _ = split.tokens[0]
    else:
        with pytest.raises(ChangedError):
            _ = split.tokens[0]


@pytest.mark.parametrize("mode", ["streaming", "resident"])
def test_loaders_yield_the_old_batches_or_raise(path, mode):
    options = {"batch_size": 8, "order": "window", "window_blocks": 2, "mode": mode}
    expected = [batch.tokens for batch in loader(seit.open(path)["train"], **options)]
    stream = loader(seit.open(path)["train"], **options)
    batches = iter(stream)
    found = [next(batches).tokens for _ in range(3)]
    overwrite(path)
    raised = False
    try:
        found += [batch.tokens for batch in batches]
    except ChangedError:
        raised = True
    assert raised == (mode == "streaming")
    assert all(map(torch.equal, found, expected))
    getattr(stream, "close", lambda: None)()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
def test_forked_workers_notice_it_too(tmp_path):
    build(tmp_path / "store")
    dataset = TokenDataset(seit.open(tmp_path / "store")["train"], resident=False)
    batches = iter(DataLoader(dataset, batch_size=4, num_workers=1, prefetch_factor=1))
    assert (
        next(batches)["tokens"].tolist()
        == np.stack([dataset[i]["tokens"] for i in range(4)]).tolist()
    )
    overwrite(tmp_path / "store")
    with pytest.raises(ChangedError):
        list(batches)


def test_a_stage_of_a_pipeline_notices_it(tmp_path):
    build(tmp_path / "store")
    store = seit.open(tmp_path / "store")
    places = store["train"].shards[0].places[0].frames
    data = (tmp_path / "store/train/00000.tar").read_bytes()
    block = {
        MEMBER_SUFFIXES[kind]: data[offset : offset + size]
        for kind, (offset, size) in places.items()
    }
    decode = BlockDecoder(store)
    assert len(list(decode([block]))) == 8
    overwrite(tmp_path / "store")
    with pytest.raises(ChangedError):
        list(decode([block]))


@pytest.fixture
def memory():
    filesystem = fsspec.filesystem("memory")
    yield "memory://sealed"
    with suppress(FileNotFoundError):
        filesystem.rm("/sealed", recursive=True)


def put(path, url, *, change=True):
    """Put a store in the place of the one at the URL, the card last, as an upload does."""
    filesystem = fsspec.filesystem("memory")
    if change:
        filesystem.rm("/sealed", recursive=True)
    copy_store(path, url)


@pytest.mark.parametrize("cache_bytes", [pytest.param(0, marks=pytest.mark.slow), 10**6])
def test_a_remote_reader_gets_what_it_opened_or_an_error(path, memory, kind, tmp_path, cache_bytes):
    put(path, memory, change=False)
    truth = truth_of(path)
    options = {"cache_dir": tmp_path / "cache", "cache_bytes": cache_bytes}
    store = seit.open(memory, **options)
    assert same(store["train"].tokens[:40], truth["tokens[:]"][:40])
    build(tmp_path / "second", *kind, seed=1)
    put(tmp_path / "second", memory)
    assert check(store["train"], truth) > 10
    fresh = seit.open(memory, **options)
    assert not check(fresh["train"], truth_of(tmp_path / "second"))
    assert not check(seit.open(store.folder, **options)["train"], truth_of(tmp_path / "second"))
    put(path, memory)
    assert not check(store["train"], truth)


def test_a_cache_keeps_nothing_of_another_store(tmp_path, memory, monkeypatch):
    """Bytes that came while the store was replaced do not stay under the old one's name."""
    build(tmp_path / "one")
    build(tmp_path / "two", seed=1)
    put(tmp_path / "one", memory, change=False)
    truth = truth_of(tmp_path / "one")
    store = seit.open(memory, cache_dir=tmp_path / "cache")
    read = RemoteFolder.read

    def change(self, name, offset=0, size=None):
        monkeypatch.setattr(RemoteFolder, "read", read)
        put(tmp_path / "two", memory)
        return read(self, name, offset, size)

    monkeypatch.setattr(RemoteFolder, "read", change)
    with pytest.raises(ChangedError):
        _ = store["train"].tokens[0]
    put(tmp_path / "one", memory)
    for opened in (store, seit.open(memory, cache_dir=tmp_path / "cache")):
        assert not check(opened["train"], truth)


def change_at(monkeypatch, path, number, *, name="train"):
    """Replace the store at the ``number``-th read of a shard of it."""
    read, calls = LocalFolder.read, []

    def race(self, file, offset=0, size=None):
        if self.path == path and file.startswith(name):
            calls.append(file)
            if len(calls) == number:
                overwrite(path)
        return read(self, file, offset, size)

    monkeypatch.setattr(LocalFolder, "read", race)


@pytest.mark.parametrize(
    "operate",
    [
        lambda one, two, out: convert_store(one, out, container="zarr", codec="packed"),
        lambda one, two, out: convert_store(one, out, container="official"),
        lambda one, two, out: merge_stores(out, [two, one], prefix=True),
        lambda one, two, out: filter_store(one, out, patterns=["*1.jpg"]),
    ],
    ids=["convert", "export", "merge", "filter"],
)
@pytest.mark.parametrize("number", [3, 10])
def test_operations_write_no_mixture(tmp_path, monkeypatch, operate, number):
    build(tmp_path / "one")
    build(tmp_path / "two")
    grid = seit.open(tmp_path / "one").card.tokenizer.grid
    monkeypatch.setattr("seit.stores.convert.OFFICIAL_GRID", grid)
    change_at(monkeypatch, tmp_path / "one", number)
    with pytest.raises(ChangedError):
        operate(tmp_path / "one", tmp_path / "two", tmp_path / "out")
    assert not (tmp_path / "out" / "store.json").exists()


@pytest.mark.parametrize("look", [verify_store, lambda path: copy_store(path, f"{path}-copy")])
def test_a_copy_and_a_verification_say_that_the_store_changed(tmp_path, monkeypatch, look):
    path = tmp_path / "store"
    build(path)
    size = LocalFolder.size

    def change(self, name):
        if name.startswith("train/00001"):
            monkeypatch.setattr(LocalFolder, "size", size)
            overwrite(path)
        return size(self, name)

    monkeypatch.setattr(LocalFolder, "size", change)
    with pytest.raises(ChangedError, match="changed after it was opened"):
        look(path)
    assert not (tmp_path / "store-copy" / "store.json").exists()


def test_a_repair_restores_nothing_into_another_store(tmp_path, monkeypatch):
    path, copy = tmp_path / "store", tmp_path / "copy"
    build(path)
    copy_store(path, copy)
    (path / "train/00000.tar").write_bytes(b"")
    size = LocalFolder.size

    def change(self, name):
        if name.startswith("train/00000") and self.path == path:
            monkeypatch.setattr(LocalFolder, "size", size)
            overwrite(path)
        return size(self, name)

    monkeypatch.setattr(LocalFolder, "size", change)
    with pytest.raises(ChangedError):
        verify_store(path, repair_from=copy)
    assert verify_store(path).ok


def test_a_deletion_that_links_files_of_another_store_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "store"
    build(path)
    link = os.link

    def change(source, target):
        monkeypatch.setattr(os, "link", link)
        overwrite(path)
        link(source, target)

    monkeypatch.setattr(os, "link", change)
    with pytest.raises(ChangedError):
        delete_samples(path, ["val/bilder/ü3.jpg"])
    assert verify_store(path).ok
    build(tmp_path / "second", seed=1)
    assert seit.open(path).card.seal == seit.open(tmp_path / "second").card.seal


def test_rows_are_of_the_store_that_they_were_chosen_in(tmp_path):
    build(tmp_path / "store")
    store = seit.open(tmp_path / "store")
    rows = {"train": np.flatnonzero(store["train"].labels == 1)}
    delete(tmp_path / "store")
    with pytest.raises(ChangedError):
        filter_store(store, tmp_path / "out", rows=rows)
    assert not (tmp_path / "out").exists()


def test_repairs_and_jobs_wait_for_one_another(tmp_path):
    from seit.ingest.workspace import Workspace
    from seit.stores.replace import locked, work_of

    path, copy = tmp_path / "store", tmp_path / "copy"
    build(path)
    copy_store(path, copy)
    with locked(work_of(path), path):
        with pytest.raises(SeitError, match="another call is changing"):
            verify_store(path, repair_from=copy)
        with pytest.raises(SeitError, match="another call is changing"):
            Workspace(path, staged=False).locked().__enter__()
    with Workspace(path, staged=False).locked(), pytest.raises(SeitError, match="a job is writing"):
        verify_store(path, repair_from=copy)
    assert verify_store(path, repair_from=copy).ok
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["copy", "store"]


def test_a_training_that_streams_says_so_and_can_be_resumed(tmp_path):
    from support.files import plant
    from support.pictures import pictures

    from seit.config import build as build_config
    from seit.ingest import TokenizeConfig, tokenize
    from seit.training import TrainConfig, train

    corpus, path, out = (
        plant(tmp_path / "corpus", pictures(0, 40)),
        tmp_path / "store",
        tmp_path / "run",
    )
    config = TokenizeConfig(size=32, codes=16, codec="packed", val_fraction=0.3, workers=1)
    tokenize(corpus, path, config)
    shutil.copytree(path, tmp_path / "kept")
    model = {
        "name": "vit_tiny_patch16_224",
        "stem": "auto",
        "embed_dim": 16,
        "depth": 1,
        "num_heads": 2,
    }
    settings = {
        "model": model,
        "data": {"batch_size": 8, "mode": "streaming", "order": "window"},
        "schedule": {"steps": 16},
        "run": {"device": "cpu", "eval_every": 16},
    }
    config = build_config(TrainConfig, settings, origin="test")

    def change(step, *_):
        if step == 2:
            delete_samples(path, ["a/0.png"])

    with pytest.raises(ChangedError, match=r"changed after .* stopped at step .*--resume"):
        train(config, path, out=out, progress=change)
    with pytest.raises(UsageError, match="has changed since; restore it"):
        train(config, path, out=out, resume=True)
    shutil.rmtree(path)
    (tmp_path / "kept").rename(path)
    steps = []
    train(config, path, out=out, resume=True, progress=lambda step, *_: steps.append(step))
    assert steps[0] > 3
    assert steps[-1] == 16
