"""`seit info`: the card alone, and the samples of each class on request."""

import json

import numpy as np
import pytest
from support.stores import build_store, edit_card

import seit
from seit.cli import main
from seit.errors import DamagedError


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
