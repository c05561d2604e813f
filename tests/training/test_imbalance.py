"""Rare classes: weights in the loss, and draws of every class as often."""

import numpy as np
import pytest
import torch
from support.stores import build_store
from torch.nn import functional as F

import seit
from seit.augment import Augmented
from seit.errors import SeitError, UsageError
from seit.stores import filter_store
from seit.stream import BalancedOrder, BalancedWindowOrder
from seit.training import Run
from seit.training.class_weights import class_weights
from seit.training.config import LossConfig
from seit.training.losses import classification_loss, soft_targets

LABELS = np.array([0] * 50 + [2] * 7 + [5] * 3)[np.random.default_rng(0).permutation(60)]
TINY = {
    "model": {"embed_dim": 16, "depth": 2, "num_heads": 2, "stem": "2/2/0"},
    "augment": {"crop_size": 8},
    "data": {"batch_size": 12},
    "run": {"device": "cpu", "loggers": [], "checkpoint_every": 2},
}


def test_an_epoch_draws_every_class_as_often():
    order = BalancedOrder(LABELS, seed=3)
    epochs = [order.indices(np.arange(60), epoch) for epoch in range(20)]
    for rows in epochs:
        assert np.bincount(LABELS[rows])[[0, 2, 5]].tolist() == [20, 20, 20]
    drawn = np.bincount(np.concatenate(epochs), minlength=60)
    for label in (0, 2, 5):
        assert np.ptp(drawn[label == LABELS]) <= 1, "samples of a class are drawn as often"
    assert not np.array_equal(epochs[0], epochs[1])


def test_draws_are_a_function_of_seed_epoch_and_position():
    order, later = BalancedOrder(LABELS, seed=3), BalancedOrder(LABELS, seed=3)
    np.testing.assert_array_equal(
        later.indices(np.array([7, 50]), 9), order.indices(np.arange(60), 9)[[7, 50]]
    )
    other = BalancedOrder(LABELS, seed=4).indices(np.arange(60), 9)
    assert not np.array_equal(other, order.indices(np.arange(60), 9))
    halves = [np.diff(LABELS[order.indices(np.arange(60), 9)]) == 0]
    assert 0.1 < np.mean(halves) < 0.6, "classes come in no pattern"


@pytest.mark.parametrize("kind", ["ce", "bce"])
def test_weights_multiply_the_terms_of_their_classes(kind):
    torch.manual_seed(0)
    logits, weights = torch.randn(6, 4).double(), torch.tensor([1.0, 0.5, 2.0, 0.0]).double()
    labels, partner = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([1, 2, 3, 0, 0, 1])
    batch = Augmented(torch.zeros(6), labels, partner, torch.linspace(0, 1, 6).double())
    config = LossConfig(kind=kind, label_smoothing=0.1)
    targets = soft_targets(logits, batch, config)
    if kind == "ce":
        expected = -(weights * targets * F.log_softmax(logits, 1)).sum(1).mean()
    else:
        share = torch.sigmoid(logits)
        terms = targets * share.log() + (1 - targets) * (1 - share).log()
        expected = -(weights * terms).mean()
    torch.testing.assert_close(classification_loss(logits, batch, config, weights), expected)


def test_balanced_weights_average_to_one(pattern_store, tmp_path):
    class Split:
        classes = ("a", "b", "c")
        labels = np.array([0, 0, 0, 1, -1])
        label_sets = None

    weights = class_weights("balanced", Split())
    assert weights.tolist() == pytest.approx([2 / 3, 2, 1])
    assert weights[Split.labels[:4]].mean() == pytest.approx(1)
    file = tmp_path / "weights.yaml"
    file.write_text("{dots: 2, rings: 0.5}")
    assert class_weights(str(file), pattern_store["train"]).tolist() == [1, 2, 0.5]
    cases = {"{dotz: 1}": "not a class", "{dots: -1}": "0 or more", "{dots: .nan}": "0 or more"}
    for text, words in (cases | {"[1, 2]": "weights.yaml"}).items():
        file.write_text(text)
        with pytest.raises(SeitError, match=words):
            class_weights(str(file), pattern_store["train"])
    with pytest.raises(SeitError):
        class_weights(str(tmp_path / "missing.yaml"), pattern_store["train"])


def test_names_of_classes_in_a_file_of_weights_may_be_numbers(tmp_path):
    class Split:
        classes = ("0", "1", "true")
        label_sets = None

    file = tmp_path / "weights.yaml"
    file.write_text("0: 2.5\n'true': 3\n")
    assert class_weights(str(file), Split()).tolist() == [2.5, 1, 3]
    file.write_text("true: 3\n")
    with pytest.raises(UsageError, match=r"names the class True; put quotes around such a name"):
        class_weights(str(file), Split())


def test_balanced_weights_are_of_the_samples_that_are_trained_on(pattern_store, tmp_path):
    labels = pattern_store["train"].labels
    rows = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels > 0)[::6]])
    filter_store(
        pattern_store,
        tmp_path / "rare",
        rows={"train": np.sort(rows), "val": np.arange(15)},
    )
    store = seit.open(tmp_path / "rare")
    assert np.bincount(store["train"].labels).tolist() == [12, 2, 2]
    changes = {"loss.class_weights": "balanced", "data.fraction": 0.25, "config": TINY}
    seit.train(store, out=tmp_path / "run", steps=1, batch_size=4, **changes)
    weights = Run.open(tmp_path / "run").info["class_weights"]
    assert weights == pytest.approx({"bars": 5 / 9, "dots": 5 / 3, "rings": 5 / 3}), "of 3, 1, 1"


def test_a_balanced_run_resumes_bit_for_bit(pattern_store, tmp_path):
    file = tmp_path / "weights.yaml"
    file.write_text("{dots: 2}")
    changes = {"loss.class_weights": str(file), "data.sampling": "balanced", "config": TINY}
    whole = seit.train(pattern_store, out=tmp_path / "a", steps=4, **changes)

    def stop(done, total, figures):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seit.train(pattern_store, out=tmp_path / "b", steps=4, progress=stop, **changes)
    file.write_text("{dots: 3}")
    with pytest.raises(UsageError, match="other class weights"):
        seit.train(pattern_store, out=tmp_path / "b", steps=4, resume=True, **changes)
    file.write_text("{dots: 2}")
    again = seit.train(pattern_store, out=tmp_path / "b", steps=4, resume=True, **changes)
    assert again.loss == whole.loss
    assert Run.open(tmp_path / "a").info["class_weights"]["dots"] == 2


def test_a_streamed_epoch_draws_every_class_as_often(tmp_path):
    columns = build_store(tmp_path, shards={"train": (96, 96, 8)}, block_samples=8)["train"]
    split = seit.open(tmp_path)["train"]
    skewed = np.where(columns.labels < 0, 0, columns.labels)
    order = BalancedWindowOrder(skewed, split.block_sizes, seed=3, window_blocks=4)
    epochs = [order.indices(np.arange(200), epoch) for epoch in range(40)]
    for rows in epochs:
        assert np.ptp(np.bincount(skewed[rows])) <= 1
    drawn = np.bincount(np.concatenate(epochs), minlength=200)
    for label in range(3):
        share = drawn[skewed == label] / drawn[skewed == label].mean()
        assert 0.6 < share.min() < share.max() < 1.4, "samples of a class are drawn as often"
    later = BalancedWindowOrder(skewed, split.block_sizes, seed=3, window_blocks=4)
    np.testing.assert_array_equal(later.indices(np.array([190, 7]), 9), epochs[9][[190, 7]])
    for window in range(order.num_windows):
        places = order.positions_of(window, 9)
        own = set(order.blocks_of(window, 9).tolist())
        blocks = np.searchsorted(split.block_sizes.cumsum(), epochs[9][places], side="right")
        assert set(blocks.tolist()) <= own, "a window draws from its own blocks"


@pytest.mark.parametrize("codec", ["packed", "context"])
def test_balanced_batches_are_the_same_streamed_resident_and_on_ranks(tmp_path, codec):
    build_store(
        tmp_path, shards={"train": (96, 100)}, block_samples=8, classes=("a",) * 3, codec=codec
    )
    split = seit.open(tmp_path)["train"]
    split.__dict__["labels"] = np.arange(196) % 7 % 3
    settings = {"batch_size": 16, "sampling": "balanced", "order": "window", "window_blocks": 3}

    def batches(start=0, **changes):
        loader = seit.loader(split, **settings, **changes)
        found = [next(steps) for steps in [loader.steps(start)] for _ in range(14)]
        loader.close()
        return found

    resident = batches(mode="resident")
    for streamed, own in zip(batches(mode="streaming"), resident, strict=True):
        assert torch.equal(streamed.tokens, own.tokens)
        np.testing.assert_array_equal(streamed.indices, own.indices)
    resumed = batches(mode="streaming", start=5)
    assert torch.equal(resumed[0].tokens, resident[5].tokens)
    ranks = [batches(mode="streaming", rank=rank, world_size=2) for rank in (0, 1)]
    for step, own in enumerate(resident):
        parts = [one[step] for one in ranks]
        positions = torch.cat([part.positions for part in parts])
        tokens = torch.cat([part.tokens for part in parts])[positions.argsort()]
        assert torch.equal(tokens, own.tokens)


def test_a_balanced_streamed_run_resumes_bit_for_bit(pattern_store, tmp_path):
    changes = {"data.sampling": "balanced", "data.order": "window", "data.mode": "streaming"}
    changes |= {"config": TINY, "steps": 4}
    whole = seit.train(pattern_store, out=tmp_path / "a", **changes)

    def stop(done, total, figures):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seit.train(pattern_store, out=tmp_path / "b", progress=stop, **changes)
    assert seit.train(pattern_store, out=tmp_path / "b", resume=True, **changes).loss == whole.loss


def test_a_balanced_split_that_is_streamed_needs_the_order_window(pattern_store):
    with pytest.raises(UsageError, match=r"set the order \(data\.order\) to window"):
        seit.loader(pattern_store["train"], batch_size=4, sampling="balanced", mode="streaming")
    for batch in seit.loader(pattern_store["train"], batch_size=4, sampling="balanced").epoch(0):
        assert len(batch) == 4
