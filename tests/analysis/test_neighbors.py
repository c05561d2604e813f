"""`seit neighbors`: exact search in blocks, votes, tables, and files that do not fit."""

import csv
import json

import numpy as np
import pytest

import seit
from seit.analysis.neighbors import index as search
from seit.analysis.neighbors.classify import vote
from seit.analysis.neighbors.index import Nearest, NeighborIndex
from seit.errors import DamagedError, UsageError
from seit.training.features.base import Origins
from seit.training.features.formats import FORMATS


def write(path, features, *, labels=None, keys=None, classes=("a", "b", "c"), layer="head"):
    features = np.asarray(features, np.float32)
    labels = np.zeros(len(features), np.int64) if labels is None else np.asarray(labels)
    keys = [f"{row}.png" for row in range(len(features))] if keys is None else keys
    with path.open("wb") as file:
        origins = Origins(layer=layer)
        with FORMATS[path.suffix](file, classes=classes, origins=origins) as writer:
            for rows in np.array_split(np.arange(len(features)), 3):
                writer.add(features[rows], labels[rows], [keys[row] for row in rows])
    return path


def oracle(features, queries, k, own=None):
    """Rows of the k greatest cosines, in float64."""
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, features)]
    cosines = unit[0] @ unit[1].T
    if own is not None:
        cosines[np.arange(len(queries)), own] = -np.inf
    return np.argsort(-cosines, axis=1)[:, :k]


@pytest.mark.parametrize("suffix", [".safetensors", ".parquet"])
def test_blocks_find_what_a_whole_search_finds(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(search, "_BLOCK_ROWS", 7)
    monkeypatch.setattr(search, "QUERY_ROWS", 5)
    values = np.random.default_rng(0).normal(size=(53, 6))
    index = NeighborIndex(write(tmp_path / f"f{suffix}", values))
    rows = np.arange(53)
    found = index.search(values.astype(np.float32), k=4, rows=rows)
    np.testing.assert_array_equal(found.rows, oracle(values, values, 4, rows))
    queries = np.random.default_rng(1).normal(size=(11, 6)).astype(np.float32)
    np.testing.assert_array_equal(index.search(queries, k=9).rows, oracle(values, queries, 9))
    few = index.search(queries[:2], k=100)
    assert few.rows.shape == (2, 53)
    assert sorted(few.rows[0]) == list(rows)


@pytest.mark.parametrize(
    "keys",
    [
        ["a.wav#0", "a.wav#1", "b.wav#0", "b.wav#1"],
        ["a.jpg#v0", "a.jpg#v1", "b.jpg#v0", "b.jpg#v1"],
    ],
)
def test_windows_and_views_of_one_file_are_no_neighbors(tmp_path, keys):
    values = [[1, 0], [1, 0.01], [1, 0.02], [0, 1]]
    index = NeighborIndex(write(tmp_path / "f.safetensors", values, keys=keys))
    found = index.search(index.vectors([0]), k=3, rows=np.array([0]))
    assert found.rows.tolist() == [[2, 3, -1]]


def test_votes_are_weighted():
    nearest = Nearest(np.array([[0, 1, 2], [3, -1, -1]]), np.float32([[0.9, 0.5, 0.5], [1, 0, 0]]))
    voted, first = vote(nearest, np.array([2, 1, 1, -1]))
    assert voted.tolist() == [2, -1]
    assert first.tolist() == [2, -1]
    close = Nearest(nearest.rows, np.float32([[0.5, 0.5, 0.5], [1, -np.inf, -np.inf]]))
    assert vote(close, np.array([2, 1, 1, 0]))[0].tolist() == [1, 0]


def test_accuracy_leaves_each_sample_out(tmp_path):
    values = [[1, 0], [1, 0.1], [0, 1], [0.1, 1], [-1, 0.5]]
    path = write(tmp_path / "f.safetensors", values, labels=[0, 0, 1, 1, -1])
    result = seit.neighbors(path, k=1, out=tmp_path / "n.csv")
    assert (result.knn_top1, result.nearest_top1, result.chance) == (1, 1, 0.5)
    assert (result.samples, result.labeled) == (5, 4)
    rows = list(csv.DictReader((tmp_path / "n.csv").read_text().splitlines()))
    assert [row["neighbor"] for row in rows][:4] == ["1.png", "0.png", "3.png", "2.png"]
    other = write(tmp_path / "g.safetensors", [[1, 0], [0, 1]], labels=[2, 2], classes="zba")
    result = seit.neighbors(path, queries=other, k=1)
    assert result.knn_top1 == 0.5, "classes are matched by name"


def test_neighbors_of_keys_on_the_command_line(tmp_path, call):
    path = write(tmp_path / "f.parquet", [[1, 0], [1, 0.1], [0, 1]], labels=[0, 1, -1])
    code, out, _ = call("neighbors", path, "--key", "0.png", "--k", 2, "--json")
    query = json.loads(out)["queries"][0]
    assert (code, query["label"]) == (0, "a")
    assert [one["key"] for one in query["neighbors"]] == ["1.png", "2.png"]
    code, out, _ = call("neighbors", path, "--key", "0.png", "--k", 2)
    assert out.splitlines()[1].split() == ["0.9950", "1.png", "b"]


def test_more_neighbors_than_there_are_is_said(tmp_path, call):
    path = write(tmp_path / "f.safetensors", [[1, 0], [1, 0.1], [0, 1]], labels=[0, 0, 1])
    assert seit.neighbors(path, k=9).k == seit.neighbors(path, keys=["0.png"], k=9).k == 2
    assert seit.neighbors(path, queries=path, k=9).k == 3
    code, out, err = call("neighbors", path, "--k", 9)
    assert (code, "accuracy of 2 neighbors" in out) == (0, True)
    assert "note: --k is 9 and a sample has 2 others to choose from" in err


def test_what_cannot_be_searched(tmp_path):
    path = write(tmp_path / "f.safetensors", [[1, 0], [0, 1]])
    with pytest.raises(UsageError, match="there is no sample 'cat'"):
        seit.neighbors(path, keys=["cat"])
    with pytest.raises(UsageError, match="at least 1"):
        seit.neighbors(path, k=0)
    with pytest.raises(UsageError, match="choose one"):
        seit.neighbors(path, keys=["0.png"], queries=path)
    other = write(tmp_path / "g.safetensors", [[1, 0]], layer="blocks.0")
    with pytest.raises(UsageError, match="other runs or layers"):
        seit.neighbors(path, queries=other)
    wide = write(tmp_path / "h.safetensors", [[1, 0, 0]])
    with pytest.raises(UsageError, match="2 dimensions"):
        seit.neighbors(path, queries=wide)
    broken = write(tmp_path / "i.safetensors", [[1, np.nan]])
    with pytest.raises(DamagedError, match="is not finite"):
        seit.neighbors(broken)
