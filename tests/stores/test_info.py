"""`seit info`: the card alone, and the samples of each class on request."""

import json
import os

import numpy as np
import pytest
from support.files import plant
from support.stores import build_store, edit_card

import seit
from seit.cli import main
from seit.errors import DamagedError, UsageError
from seit.stores import verify_store


@pytest.fixture
def store(tmp_path):
    columns = build_store(tmp_path, shards={"train": (9, 4), "val": (3,)}, block_samples=4)
    return tmp_path, columns


def test_counts_are_those_of_the_labels(store):
    path, columns = store
    seen = []
    found = seit.info(path, counts=True, progress=lambda *place: seen.append(place))
    for name, split in columns.items():
        labels = np.asarray(split.labels)
        expected = [int((labels == number).sum()) for number in range(3)]
        assert list(found.class_counts[name]) == expected
    assert seen[-1] == (16, 16)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_without_counts_no_shard_is_read(store):
    path, _ = store
    for file in path.glob("*/*.tar"):
        file.unlink()
    assert seit.info(path).class_counts is None


def test_labels_outside_of_the_classes_are_damage(store):
    path, _ = store
    edit_card(path, lambda body: body.update(classes=[]))
    with pytest.raises(DamagedError, match="where the card names 0 classes"):
        seit.info(path, counts=True)


def test_the_command_prints_the_range(store, capsys):
    path, columns = store
    main(["info", str(path), "--counts"])
    out = capsys.readouterr().out
    assert "train per class" in out
    assert "median" in out
    main(["info", str(path), "--counts", "--json"])
    counts = json.loads(capsys.readouterr().out)["class_counts"]
    assert sum(counts["val"]) == int((np.asarray(columns["val"].labels) >= 0).sum())


def test_an_unfinished_job_and_a_run_are_named_as_such(tmp_path):
    for name, file, words in (
        ("begun", ".tokenize/job.json", "its tokenize job is unfinished; run the same"),
        ("run", "run.json", "it is a run; `seit runs list"),
        ("other", "notes.txt", "make one with `seit tokenize SRC"),
    ):
        plant(tmp_path / name, {file: b"{}"})
        with pytest.raises(UsageError, match=words):
            seit.info(tmp_path / name)
        with pytest.raises(UsageError, match=words):
            verify_store(tmp_path / name)


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setattr("seit.stores.counts._WORTH_SECONDS", 0.0)
    return folder / "seit" / "counts"


def test_counts_are_read_once(store, cache):
    path, _ = store
    first = seit.info(path, counts=True)
    for file in path.glob("*/*.tar"):
        file.unlink()
    seen = []
    again = seit.info(path, counts=True, progress=lambda *place: seen.append(place))
    assert again.class_counts == first.class_counts
    assert list(again.class_counts) == list(first.class_counts)
    assert seen == [(16, 16)]


def test_another_card_is_counted_again(store, cache):
    path, _ = store
    found = seit.info(path, counts=True)
    seit.delete(path, keys=[seit.open(path)["train"].keys[0]])
    fewer = seit.info(path, counts=True)
    assert sum(map(sum, fewer.class_counts.values())) < sum(map(sum, found.class_counts.values()))
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    "text", ["", "[]", '{"train": [1, 2]}', '{"train": [9, 9, 9], "val": [0, 0, 0]}', '{"a": "b"}']
)
def test_counts_that_do_not_fit_are_not_believed(store, cache, text):
    path, _ = store
    found = seit.info(path, counts=True)
    (kept,) = cache.iterdir()
    kept.write_text(text)
    assert seit.info(path, counts=True).class_counts == found.class_counts
    assert kept.read_text() != text


def test_counts_that_cannot_be_kept_are_shown(store, cache, monkeypatch):
    path, _ = store
    cache.parent.parent.rmdir()
    cache.parent.parent.write_text("no folder")
    assert seit.info(path, counts=True).class_counts is not None


def test_the_latest_counts_are_kept(store, cache, monkeypatch):
    path, _ = store
    monkeypatch.setattr("seit.stores.counts._KEPT", 2)
    cache.mkdir(parents=True)
    for name in "ab":
        (cache / f"{name}.json").write_text("{}")
    os.utime(cache / "a.json", ns=(1, 1))
    seit.info(path, counts=True)
    assert sorted(file.name for file in cache.iterdir())[-1] == "b.json"
    assert len(list(cache.iterdir())) == 2
    assert not (cache / "a.json").exists()
