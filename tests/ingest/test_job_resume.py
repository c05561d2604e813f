"""Jobs that stop, are called again, or come upon another's store: resumed, replaced or refused."""

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.files import plant, tree
from support.jobs import blocks_of, interrupt, message, small, stop_after
from support.pictures import png

import seit
from seit.errors import DamagedError, SeitError, UsageError
from seit.ingest import TokenizeConfig, settle, tokenize
from seit.stores import replace as stores_replace, verify_store

SHARD = 64
with blocks_of(SHARD):
    CONFIG = TokenizeConfig(size=64, codes=64, shard_samples=SHARD)
NUM_IMAGES, NUM_BROKEN = 150, 5


@pytest.fixture(scope="module", autouse=True)
def _small_blocks():
    with blocks_of(SHARD):
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Enough pictures for three shards of train and one of val, and a few that are broken."""
    folder = small(tmp_path_factory.mktemp("corpus"), NUM_IMAGES)
    return plant(folder, {f"b/broken {number}.png": b"?" for number in range(NUM_BROKEN)})


@pytest.fixture(scope="module")
def made(corpus, tmp_path_factory):
    """The store of a job that nothing disturbed."""
    path = tmp_path_factory.mktemp("made") / "store"
    tokenize(corpus, path, CONFIG)
    card = seit.open(path).card
    assert {split: len(card.splits[split]) for split in card.splits} == {"train": 3, "val": 1}
    return path


@pytest.mark.parametrize("inputs", [1, SHARD, 94, NUM_IMAGES])
def test_an_interrupted_job_goes_on_and_ends_with_the_same_bytes(made, corpus, tmp_path, inputs):
    target = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        tokenize(corpus, target, CONFIG, progress=stop_after(inputs))
    assert not list(target.rglob("*.partial"))
    seen = []
    tokenize(corpus, target, CONFIG, progress=lambda done, *_: seen.append(done))
    assert seen == sorted(seen)
    assert seen[-1] == NUM_IMAGES + NUM_BROKEN
    assert seen[0] == (1 if inputs <= SHARD else SHARD)
    assert tree(target) == tree(made)


def begun(source, store, config=CONFIG):
    with pytest.raises(KeyboardInterrupt):
        tokenize(source, store, config, progress=stop_after(1))


def test_other_settings_are_refused_by_name(tmp_path):
    source, store = small(tmp_path / "src"), tmp_path / "store"
    begun(source, store)
    for finished in (False, True):
        for changes in ({"size": 32}, {"codes": 32}, {"val_fraction": 0.2}, {"seed": 1}):
            text = message(UsageError, source, store, replace(CONFIG, **changes))
            ((name, value),) = changes.items()
            assert f"({name} was {getattr(CONFIG, name)!r} and is {value!r})" in text
        text = message(UsageError, source, store, replace(CONFIG, size=32, shard_samples=2 * SHARD))
        assert "size was 64 and is 32, shard_samples was 64 and is 128" in text
        if not finished:
            tokenize(source, store, CONFIG)


def test_another_shipped_tokenizer_is_refused_by_name(tmp_path):
    source, store = small(tmp_path / "src"), tmp_path / "store"
    earlier = replace(CONFIG, tokenizer="conv-vq-f8-1024", size=None, codes=1024)
    begun(source, store, earlier)
    text = message(UsageError, source, store, replace(earlier, tokenizer="conv-vq-f8-1024-lite"))
    assert "(tokenizer was 'conv-vq-f8-1024' and is 'conv-vq-f8-1024-lite')" in text


def test_a_changed_source_is_refused(tmp_path):
    source, store = small(tmp_path / "src"), tmp_path / "store"
    begun(source, store)
    plant(source, {"a/one more.png": png(99, 20)})
    assert "SRC have changed" in message(UsageError, source, store, CONFIG)
    (source / "a" / "one more.png").unlink()
    tokenize(source, store, CONFIG)
    (source / "a" / "0.png").unlink()
    assert "SRC have changed" in message(UsageError, source, store, CONFIG)
    tokenize(source, store, replace(CONFIG, overwrite=True))
    tokenize(source, tmp_path / "fresh", CONFIG)
    assert tree(store) == tree(tmp_path / "fresh")


def test_overwrite_replaces_all_of_another_store(made, corpus, tmp_path):
    store = tmp_path / "store"
    tokenize(corpus, store, CONFIG)
    source = small(tmp_path / "src")
    config = replace(CONFIG, overwrite=True)
    tokenize(source, store, config)
    tokenize(source, tmp_path / "fresh", CONFIG)
    assert tree(store) == tree(tmp_path / "fresh")


@pytest.mark.parametrize("tokenizer", ["patch-pca-vq", "conv-vq-f8-1024-lite"])
def test_overwrite_keeps_the_store_if_nothing_is_readable(made, tmp_path, tokenizer):
    store = shutil.copytree(made, tmp_path / "store")
    source = plant(tmp_path / "src", {f"a/{number}.png": b"?" for number in range(9)})
    other = TokenizeConfig(tokenizer=tokenizer, overwrite=True)
    text = message(SeitError, source, store, other)
    assert "can be read as an image" in text or "no image of" in text
    assert tree(store) == tree(made)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_overwrite_leaves_what_is_not_the_store_s(made, corpus, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(made, store)
    (store / "notes").mkdir()
    (store / "notes" / "paper.txt").write_text("precious")
    other = replace(CONFIG, overwrite=True, seed=7)
    assert "holds 'notes/paper.txt'" in message(UsageError, corpus, store, other)
    assert (store / "notes" / "paper.txt").read_text() == "precious"
    assert seit.open(store).card.seal == seit.open(made).card.seal
    (store / "notes" / "paper.txt").unlink()
    tokenize(corpus, store, other)
    assert verify_store(store).ok


def test_overwrite_goes_on_with_the_same_unfinished_job(made, corpus, tmp_path):
    store, config = tmp_path / "store", replace(CONFIG, overwrite=True)
    tokenize(small(tmp_path / "src"), store, CONFIG)
    old = tree(store)
    with pytest.raises(KeyboardInterrupt):
        tokenize(corpus, store, config, progress=stop_after(94))
    assert tree(store) == old
    assert "belongs to another job" in message(UsageError, corpus, store, CONFIG)
    seen = []
    tokenize(corpus, store, config, progress=lambda done, *_: seen.append(done))
    assert seen[0] == SHARD
    assert tree(store) == tree(made)
    assert not (tmp_path / ".store.replacing").exists()


def test_overwrite_killed_around_the_exchange_makes_nothing_again(
    made, corpus, tmp_path, monkeypatch
):
    """Stopped before the exchange and after it, the same call only finishes the replacement."""
    config = replace(CONFIG, overwrite=True)
    old = tree(tokenized(small(tmp_path / "src"), tmp_path / "store"))
    for target, at_store in (("replace_folder", old), ("end_earlier", tree(made))):
        store = shutil.copytree(tmp_path / "store", tmp_path / target)
        original = getattr(stores_replace, target)
        calls = []

        def stop(*arguments, original=original, calls=calls, target=target):
            calls.append(arguments)
            if target == "end_earlier" and len(calls) == 1:
                return original(*arguments)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(stores_replace, target, stop)
            with pytest.raises(KeyboardInterrupt):
                tokenize(corpus, store, config)
        assert tree(store) == at_store
        result = tokenize(corpus, store, config)
        assert result.samples == seit.open(made).card.samples
        assert tree(store) == tree(made)
        assert sorted(path.name for path in tmp_path.glob(f".{target}.*")) == []


def test_overwrite_of_a_link_replaces_the_folder_that_it_leads_to(made, corpus, tmp_path):
    store = tokenized(small(tmp_path / "src"), tmp_path / "disk" / "store")
    (tmp_path / "link").symlink_to(store)
    tokenize(corpus, tmp_path / "link", replace(CONFIG, overwrite=True))
    assert (tmp_path / "link").is_symlink()
    assert tree(store) == tree(made)


def test_a_mounted_folder_is_not_overwritten(made, corpus, monkeypatch, tmp_path):
    store = shutil.copytree(made, tmp_path / "store")
    original = Path.stat

    def stat(self, **options):
        found = original(self, **options)
        if self != store:
            return found
        return SimpleNamespace(st_dev=found.st_dev + 1, st_mode=found.st_mode)

    monkeypatch.setattr(Path, "stat", stat)
    text = message(UsageError, corpus, store, replace(CONFIG, overwrite=True, seed=7))
    assert "a disk is mounted at" in text
    assert tree(store) == tree(made)


def tokenized(source, store):
    store.parent.mkdir(exist_ok=True)
    tokenize(source, store, CONFIG)
    return store


def test_overwrite_keeps_the_old_store_until_the_new_job_can_begin(tmp_path):
    source, store = small(tmp_path / "src"), tmp_path / "store"
    plant(tmp_path / "duds", {"a/1.png": b""})
    tokenize(source, store, CONFIG)
    before = tree(store)
    config = replace(CONFIG, overwrite=True)
    message(UsageError, tmp_path / "missing", store, config)
    message(UsageError, source, store, replace(config, codes=4096))
    message(SeitError, tmp_path / "duds", store, config)
    assert tree(store) == before


@pytest.mark.parametrize(
    "moment", [pytest.param(n, marks=pytest.mark.slow) if n % 2 else n for n in range(8)]
)
def test_an_interrupted_replacement_leaves_the_old_or_the_new_store(tmp_path, monkeypatch, moment):
    """Stop at each removal of a file in turn: a whole store is at STORE at any moment."""
    store, config = tmp_path / "store", replace(CONFIG, overwrite=True)
    one, two = small(tmp_path / "one"), small(tmp_path / "two", 60)
    tokenize(two, tmp_path / "fresh", CONFIG)
    tokenize(one, store, CONFIG)
    before = tree(store)
    with monkeypatch.context() as patch:
        removals = []
        original = Path.unlink

        def unlink(self, *arguments, **options):
            if len(removals) == moment:
                raise KeyboardInterrupt
            removals.append(self)
            return original(self, *arguments, **options)

        patch.setattr(Path, "unlink", unlink)
        with suppress(KeyboardInterrupt):
            tokenize(two, store, config)
    assert tree(store) in (before, tree(tmp_path / "fresh"))
    tokenize(two, store, config)
    assert tree(store) == tree(tmp_path / "fresh")


def test_a_second_job_says_that_the_first_is_running(tmp_path):
    source, store = small(tmp_path / "src"), tmp_path / "store"
    other = small(tmp_path / "other", 20)
    told = []

    def progress(done, *_):
        if done == 5:
            for config in (CONFIG, replace(CONFIG, overwrite=True)):
                told.append(message(SeitError, source, store, config))
                told.append(message(SeitError, other, store, config))

    tokenize(source, store, CONFIG, progress=progress)
    assert len(told) == 4
    assert all("another job is writing" in text for text in told)
    tokenize(source, tmp_path / "fresh", CONFIG)
    assert tree(store) == tree(tmp_path / "fresh")


def test_a_job_that_waited_while_another_finished_finds_its_store(tmp_path, monkeypatch):
    """The second job looked before there was a card, and gets the lock after there is one."""
    source, store = small(tmp_path / "src"), tmp_path / "store"
    original = settle.list_corpus
    results = []

    def list_corpus(*arguments, **options):
        corpus = original(*arguments, **options)
        if not results:
            results.append(None)
            results.append(tokenize(source, store, CONFIG))
        return corpus

    monkeypatch.setattr(settle, "list_corpus", list_corpus)
    late = tokenize(source, store, CONFIG)
    assert late.samples_per_second == 0
    assert late.bytes == results[1].bytes
    assert not (store / ".tokenize").exists()


def test_a_job_killed_after_the_card_is_complete_and_gets_cleaned_up(tmp_path, monkeypatch):
    source, store = small(tmp_path / "src"), tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr("seit.ingest.workspace.Workspace.remove", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tokenize(source, store, CONFIG)
    assert (store / ".tokenize" / "job.json").is_file()
    assert verify_store(store).ok
    assert tokenize(source, store, CONFIG).samples_per_second == 0
    assert not (store / ".tokenize").exists()


def test_a_lost_shard_of_an_unfinished_job_is_made_again(made, corpus, tmp_path):
    target = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        tokenize(corpus, target, CONFIG, progress=stop_after(131))
    shards = target / ".tokenize" / "packed" / "train"
    (shards / "00000.tar").unlink()
    (shards / "00001.tar").write_bytes(b"short")
    (shards / "00002.tar.partial").write_bytes(b"left by a kill")
    tokenize(corpus, target, CONFIG)
    assert tree(target) == tree(made)


@pytest.mark.parametrize(
    ("codec", "container"),
    [
        ("packed", "wds"),
        ("packed", "zarr"),
        ("context", "zarr"),
    ],
)
def test_other_codecs_and_containers_resume_to_the_same_bytes(codec, container, corpus, tmp_path):
    # Of grids of 8×8, the tables of `context` are more than it saves.
    config = replace(CONFIG, size=128, codec=codec, container=container)
    tokenize(corpus, tmp_path / "plain", replace(CONFIG, size=128))
    tokenize(corpus, tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        tokenize(corpus, tmp_path / "stopped", config, progress=stop_after(131))
    tokenize(corpus, tmp_path / "stopped", config)
    assert tree(tmp_path / "stopped") == tree(tmp_path / "whole")
    store = seit.open(tmp_path / "whole")
    assert (store.card.codec, store.card.container) == (codec, container)
    assert verify_store(store.path).ok
    for split, other in seit.open(tmp_path / "plain").items():
        np.testing.assert_array_equal(store[split].tokens[:], other.tokens[:])
        assert store[split].keys == other.keys
        np.testing.assert_array_equal(store[split].labels, other.labels)


def test_a_kill_between_coding_and_the_card_is_mended(made, corpus, tmp_path, monkeypatch):
    target = tmp_path / "store"
    monkeypatch.setattr("seit.stores.sink.Sink.write_index", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tokenize(corpus, target, CONFIG)
    assert (target / "train" / "00000.tar").exists()
    monkeypatch.undo()
    tokenize(corpus, target, CONFIG)
    assert tree(target) == tree(made)


def test_a_finished_store_that_lost_a_shard_is_not_called_complete(tmp_path):
    source, store = small(tmp_path / "src"), tmp_path / "store"
    tokenize(source, store, CONFIG)
    before = tree(store)
    (store / "train" / "00000.tar").unlink()
    text = message(DamagedError, source, store, CONFIG)
    assert "train/00000.tar" in text
    assert "seit verify" in text
    tokenize(source, store, replace(CONFIG, overwrite=True))
    assert tree(store) == before


def test_damaged_job_records_are_refused_and_replaced(tmp_path):
    source, store = small(tmp_path / "src"), tmp_path / "store"
    begun(source, store)
    for damage in (b"", b"[1]", b"\xff", b"7"):
        (store / ".tokenize" / "job.json").write_bytes(damage)
        assert "record is damaged" in message(UsageError, source, store, CONFIG)
    tokenize(source, store, replace(CONFIG, overwrite=True))
    assert verify_store(store).ok
