"""Near-duplicates between splits, found on tokens."""

import json

import numpy as np
import pytest

import seit
from seit.analysis.duplicates.search import find_duplicates
from seit.cli import main
from seit.errors import UsageError
from seit.shards import Block, TokenLayout
from seit.testing import write_store

GRID = (16, 16)
CODES = 64
LAYOUT = TokenLayout(grid=GRID, num_codes=CODES)
CODEBOOK = np.stack([np.arange(CODES) % 8, np.arange(CODES) // 8, np.zeros(CODES)], axis=1).astype(
    np.float32
)
"""Codes on a plane: neighbours differ by 1 in one coordinate."""


def scenes(count, *, seed):
    """Smooth pictures (count, 16, 16) of points of the plane, each unlike the others."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 7, size=(count, 5, 5, 2))
    places = np.linspace(0, 3.999, 16)
    low = places.astype(int)
    part = (places - low)[:, None, None]
    rows = coarse[:, low] * (1 - part) + coarse[:, low + 1] * part
    part = (places - low)[:, None]
    values = rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part
    x, y = np.rint(values).astype(int).clip(0, 7).transpose(3, 0, 1, 2)
    return (x + 8 * y).astype(np.uint16)


def encoded_again(ids, *, seed, share=0.2):
    """The same pictures, a share of the tokens moved by one."""
    rng = np.random.default_rng(seed)
    x = ids % 8 + rng.integers(-1, 2, ids.shape) * (rng.random(ids.shape) < share)
    return (x.clip(0, 7) + 8 * (ids // 8)).astype(np.uint16)


def block_of(ids, name):
    keys = tuple(f"{name}/{number}" for number in range(len(ids)))
    return Block(ids, np.full(len(ids), -1, dtype=np.int32), keys)


def open_pair(path, train, val, **options):
    splits = {"train": block_of(train, "train"), "val": block_of(val, "val")}
    write_store(path, splits, LAYOUT, codebook=CODEBOOK, block_samples=32, **options)
    return seit.open(path)


@pytest.mark.parametrize("container", ["wds", "zarr"])
def test_exact_near_and_mirrored_pairs_are_found_and_no_others(tmp_path, container):
    train, val = scenes(150, seed=0), scenes(60, seed=1)
    val[3] = train[70]
    val[10:20] = encoded_again(train[40:50], seed=2)
    val[30:35] = encoded_again(train[100:105], seed=3)[:, :, ::-1]
    store = open_pair(tmp_path / "store", train, val, container=container)
    found = find_duplicates(store)
    assert (found.exact, found.near, found.unchecked) == (1, 15, 0)
    kinds = {(pair.first.key, pair.second.key): pair.kind for pair in found.pairs}
    assert kinds == {
        ("train/70", "val/3"): "exact",
        **{(f"train/{40 + n}", f"val/{10 + n}"): "near" for n in range(10)},
        **{(f"train/{100 + n}", f"val/{30 + n}"): "mirrored" for n in range(5)},
    }
    values = [pair.score for pair in found.pairs]
    assert values == sorted(values, reverse=True)
    assert values[0] == 1 > values[1]
    assert find_duplicates(store, between=("val", "train")).near == 15
    assert find_duplicates(store, threshold=1).near == 0


def test_the_score_is_the_distance_relative_to_the_spread(tmp_path):
    """Against the definition in double precision, places taken one by one."""
    train = scenes(40, seed=0)
    val = encoded_again(train[:1], seed=1)
    (pair,) = find_duplicates(open_pair(tmp_path / "store", train, val), threshold=0.5).pairs
    smooth = []
    for ids in (train[0], val[0]):
        vectors = CODEBOOK.astype(np.float64)[ids]
        smooth.append(
            [vectors[y : y + 3, x : x + 3].mean((0, 1)) for y in range(14) for x in range(14)]
        )
    one, other = np.array(smooth)
    distance = ((one - other) ** 2).sum(1).mean()
    spread = sum(((part - part.mean(0)) ** 2).sum(1).mean() for part in (one, other))
    assert pair.score == pytest.approx(1 - distance / spread, abs=1e-4)


def test_pairs_within_a_split_are_counted_once(tmp_path):
    train = scenes(50, seed=0)
    train[[7, 9]] = train[5]
    train[20] = encoded_again(train[30:31], seed=1)[0]
    store = open_pair(tmp_path / "store", train, scenes(5, seed=2))
    found = find_duplicates(store, between=("train", "train"))
    assert (found.exact, found.near) == (3, 1)
    named = {(pair.first.key[6:], pair.second.key[6:]) for pair in found.pairs}
    assert named == {("5", "7"), ("5", "9"), ("7", "9"), ("20", "30")}
    assert find_duplicates(store, between=("val", "val")).pairs == ()


def test_views_and_windows_of_a_file_are_no_duplicates_of_each_other(tmp_path):
    train = scenes(12, seed=0)
    train[1:3], train[5] = train[0], encoded_again(train[4:5], seed=1)[0]
    keys = ["a", "a#v1", "b", "c", "d.wav#0", "d.wav#1", *"efghij"]
    block = Block(train, np.full(12, -1, dtype=np.int32), tuple(keys))
    write_store(tmp_path / "store", {"train": block}, LAYOUT, codebook=CODEBOOK)
    found = find_duplicates(seit.open(tmp_path / "store"))
    assert (found.exact, found.near) == (2, 0)
    assert {(pair.first.key, pair.second.key) for pair in found.pairs} == {
        ("a", "b"),
        ("a#v1", "b"),
    }


def test_many_equal_samples_are_counted_and_few_are_listed(tmp_path):
    plain = np.zeros((300, *GRID), dtype=np.uint16)
    store = open_pair(tmp_path / "store", plain, plain[:200])
    found = find_duplicates(store, most_pairs=7)
    assert (found.exact, found.near, len(found.pairs)) == (300 * 200, 0, 7)
    assert find_duplicates(store, between=("val", "val"), most_pairs=0).exact == 200 * 199 // 2


def test_too_many_like_layouts_are_told_of(tmp_path):
    train = encoded_again(np.repeat(scenes(1, seed=0), 40, axis=0), seed=1, share=0.03)
    val = encoded_again(np.repeat(scenes(1, seed=0), 30, axis=0), seed=2, share=0.03)
    others = scenes(100, seed=3)
    store = open_pair(tmp_path / "store", np.concatenate([train, others]), val)
    found = find_duplicates(store, max_candidates=100)
    assert (found.near, found.unchecked) == (100, 1100)
    assert find_duplicates(store).near == 1200


def test_small_and_odd_stores(tmp_path):
    empty = scenes(0, seed=0)
    store = open_pair(tmp_path / "empty", empty, empty)
    assert find_duplicates(store).pairs == ()
    one = scenes(1, seed=0)
    assert find_duplicates(open_pair(tmp_path / "one", one, one)).exact == 1
    thin = TokenLayout(grid=(1, 2), num_codes=5)
    ids = np.array([[[0, 1]], [[2, 3]], [[4, 1]]], dtype=np.uint16)
    codebook = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
    write_store(tmp_path / "thin", {"all": block_of(ids, "all")}, thin, codebook=codebook)
    assert find_duplicates(seit.open(tmp_path / "thin")).exact == 0


def test_the_command(tmp_path, capsys):
    train, val = scenes(30, seed=0), scenes(10, seed=1)
    val[4] = train[8]
    val[5] = encoded_again(train[9:10], seed=2)[0]
    open_pair(tmp_path / "store", train, val)
    main(["duplicates", str(tmp_path / "store"), "--between", "train", "val", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["exact"], found["near"]) == (1, 1)
    assert found["pairs"][0] == {
        "kind": "exact",
        "score": 1.0,
        "first": {"split": "train", "key": "train/8"},
        "second": {"split": "val", "key": "val/4"},
    }
    main(["duplicates", str(tmp_path / "store"), "--most", "1"])
    assert capsys.readouterr().out.splitlines() == [
        "1.000 exact     train: train/8  val: val/4",
        "1 exact and 1 near-duplicate pairs, 1 of them not listed",
    ]
    with pytest.raises(SystemExit) as left:
        main(["duplicates", str(tmp_path / "store"), "--between", "train", "nope"])
    assert left.value.code == 2
    assert "no split 'nope'" in capsys.readouterr().err


@pytest.mark.parametrize("threshold", [0, -1, 1.5, float("nan")])
def test_thresholds_that_are_none(tmp_path, threshold):
    store = open_pair(tmp_path / "store", scenes(3, seed=0), scenes(3, seed=1))
    with pytest.raises(UsageError, match="threshold is"):
        find_duplicates(store, threshold=threshold)
