from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from support.stores import build_store

import seit
from seit.errors import DamagedError, UsageError
from seit.shards.packed import pack
from seit.stream import loader, sample_at


@pytest.fixture(scope="module", params=[1000, 40_000, 65_537])
def split_and_columns(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("store")
    shards = {"train": (20, 17)}
    columns = build_store(
        path, grid=(3, 5), num_codes=request.param, shards=shards, block_samples=8
    )
    return seit.open(path)["train"], columns["train"]


@pytest.fixture(scope="module")
def split(split_and_columns):
    return split_and_columns[0]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 100, 1023, 1024, 65_537])
def test_each_epoch_is_a_permutation(n):
    for seed, epoch in ((0, 0), (0, 1), (-5, 3), (2**63, 10**6)):
        order = sample_at(np.arange(n), n, seed=seed, epoch=epoch)
        assert order.dtype == np.int64
        np.testing.assert_array_equal(np.sort(order), np.arange(n))


@given(n=st.integers(1, 3000), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_any_epoch_is_a_permutation(n, seed, epoch):
    order = sample_at(np.arange(n), n, seed=seed, epoch=epoch)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


@pytest.mark.parametrize("n", [1, 7, 1000])
def test_positions_can_be_asked_in_any_order_and_chunking(n):
    whole = sample_at(np.arange(n), n, seed=3, epoch=2)
    rng = np.random.default_rng(0)
    for positions in (*np.array_split(rng.permutation(n), 5), np.arange(n)[::-3]):
        found = sample_at(positions, n, seed=3, epoch=2)
        np.testing.assert_array_equal(found, whole[positions])
    assert [int(sample_at(np.array([p]), n, seed=3, epoch=2)[0]) for p in range(n)] == list(whole)


def test_seeds_and_epochs_give_other_orders():
    orders = {
        tuple(sample_at(np.arange(50), 50, seed=seed, epoch=epoch))
        for seed in range(12)
        for epoch in range(12)
    }
    assert len(orders) == 144


def chi_square(counts):
    """The statistic over its degrees of freedom, which is 1 on average; and its deviation."""
    expected = counts.sum() / counts.size
    degrees = counts.size - 1
    return ((counts - expected) ** 2 / expected).sum() / degrees, (2 / degrees) ** 0.5


@pytest.mark.parametrize("n", [5, 16, 30])
def test_every_sample_is_equally_likely_at_every_position(n):
    counts = np.zeros((n, n))
    for epoch in range(3000):
        counts[np.arange(n), sample_at(np.arange(n), n, seed=1, epoch=epoch)] += 1
    statistic, deviation = chi_square(counts)
    assert abs(statistic - 1) < 5 * deviation


@pytest.mark.parametrize("n", [16, 25, 64])
def test_neighbours_are_unrelated(n):
    """Every difference (mod n) of the samples at neighbouring positions is as likely."""
    differences = np.concatenate(
        [
            np.diff(sample_at(np.arange(n), n, seed=seed, epoch=epoch)) % n
            for seed in range(4)
            for epoch in range(500)
        ]
    )
    counts = np.bincount(differences, minlength=n)
    assert counts[0] == 0
    statistic, deviation = chi_square(counts[1:].astype(float))
    assert statistic < 1 + 6 * deviation


def test_all_orders_of_three_are_equally_likely():
    orders = [tuple(sample_at(np.arange(3), 3, seed=0, epoch=epoch)) for epoch in range(3000)]
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 6
    statistic, deviation = chi_square(counts.astype(float))
    assert abs(statistic - 1) < 5 * deviation


def test_a_large_order_mixes_at_all_distances():
    n = 100_000
    order = sample_at(np.arange(n), n, seed=0, epoch=0).astype(float)
    bound = 5 / n**0.5
    for lag in (0, 1, 2, 315, 316, 317, 1000):
        shifted = order[lag:] if lag else np.arange(n, dtype=float)
        assert abs(np.corrcoef(order[: n - lag], shifted)[0, 1]) < bound


def test_a_billion_samples_cost_nothing():
    n = 10**9
    positions = np.array([0, 1, 2, n // 2, n - 2, n - 1])
    found = sample_at(positions, n, seed=0, epoch=0)
    assert len(set(found.tolist())) == 6
    assert ((found >= 0) & (found < n)).all()
    many = sample_at(np.arange(n - 20_000, n), n, seed=0, epoch=0)
    assert len(np.unique(many)) == 20_000
    assert abs(many.mean() / n - 0.5) < 0.015


def gathered(batches):
    batches = list(batches)
    return (
        np.concatenate([batch.tokens.numpy() for batch in batches]),
        np.concatenate([batch.labels.numpy() for batch in batches]),
        [key for batch in batches for key in batch.keys],
        np.concatenate([batch.positions.numpy() for batch in batches]),
    )


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(gathered(one), gathered(other), strict=True))


@pytest.mark.parametrize("batch_size", [1, 5, 16, 36, 37])
def test_an_epoch_has_every_sample_once(split_and_columns, batch_size):
    split, columns = split_and_columns
    whole = 37 // batch_size
    batches = loader(split, batch_size=batch_size)
    assert len(batches) == whole
    for epoch in (0, 1):
        found = list(batches)
        assert [len(batch) for batch in found] == [batch_size] * whole
        assert {batch.epoch for batch in found} == {epoch}
        tokens, labels, keys, positions = gathered(found)
        assert len(set(keys)) == whole * batch_size
        rows = [columns.keys.index(key) for key in keys]
        np.testing.assert_array_equal(tokens, columns.tokens[rows].astype(np.int64))
        np.testing.assert_array_equal(labels, columns.labels[rows])
        np.testing.assert_array_equal(positions, np.arange(whole * batch_size))


def test_the_dtype_of_batches(split):
    batch = next(iter(loader(split, batch_size=4)))
    small = split.layout.num_codes <= 32_768
    assert batch.tokens.dtype == (torch.int16 if small else torch.int32)
    assert batch.labels.dtype == batch.positions.dtype == torch.int64


@pytest.mark.parametrize("batch_size", [1, 5, 37, 100])
def test_unshuffled_batches_are_all_samples_in_order(split_and_columns, batch_size):
    split, columns = split_and_columns
    batches = loader(split, batch_size=batch_size, shuffle=False)
    found = list(batches)
    assert len(found) == len(batches) == -(-37 // batch_size)
    tokens, labels, keys, _ = gathered(found)
    np.testing.assert_array_equal(tokens, columns.tokens.astype(np.int64))
    np.testing.assert_array_equal(labels, columns.labels)
    assert keys == columns.keys
    assert same(batches, found)


@pytest.mark.parametrize("shuffle", [True, False])
def test_any_batch_can_be_the_first(split, shuffle):
    whole = loader(split, batch_size=5, shuffle=shuffle, seed=9)
    epochs = [list(whole), list(whole), list(whole)]
    fresh = loader(split, batch_size=5, shuffle=shuffle, seed=9)
    for epoch, expected in enumerate(epochs):
        for start in range(len(expected)):
            assert same(fresh.epoch(epoch, start=start), expected[start:])
        assert list(fresh.epoch(epoch, start=len(expected))) == []
    steps = [batch for epoch in epochs for batch in epoch]
    for start in range(len(steps) - 4):
        assert same(islice(fresh.steps(start), 4), steps[start : start + 4])
        assert [batch.epoch for batch in islice(fresh.steps(start), 4)] == [
            batch.epoch for batch in steps[start : start + 4]
        ]


def test_the_order_depends_on_the_seed_and_the_epoch_alone(split):
    one = loader(split, batch_size=12, seed=1)
    assert same(one.epoch(4), loader(split, batch_size=12, seed=1).epoch(4))
    assert not same(one.epoch(4), one.epoch(5))
    assert not same(one.epoch(4), loader(split, batch_size=12, seed=2).epoch(4))
    smaller = loader(split, batch_size=4, seed=1)
    assert same(islice(smaller.epoch(4), 9), one.epoch(4)) is True


def test_wrong_batch_sizes_are_named(split):
    with pytest.raises(UsageError, match=r"batch of 38 is larger than the 37 samples.*37 or less"):
        loader(split, batch_size=38)
    with pytest.raises(UsageError, match="batch_size is 0"):
        loader(split, batch_size=0)


def test_an_empty_split_is_refused(tmp_path):
    build_store(tmp_path, shards={"train": (1,), "val": ()})
    with pytest.raises(UsageError, match="split is empty"):
        loader(seit.open(tmp_path)["val"], batch_size=1)


def test_ids_that_are_no_codes_never_reach_a_batch(tmp_path, monkeypatch):
    monkeypatch.setattr("seit.shards.codecs.pack", lambda tokens, bits: pack(tokens + 24, bits))
    build_store(tmp_path, num_codes=1000, shards={"train": (30,)})
    batches = iter(loader(seit.open(tmp_path)["train"], batch_size=4))
    with pytest.raises(DamagedError, match="where ids are below 1000"):
        next(batches)
