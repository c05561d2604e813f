"""Probes of features against loops and closed forms; alarms; pictures of what was completed."""

import math

import numpy as np
import pytest
import torch
from support.pretraining import changed
from torch.nn import functional as F

from seit.errors import UsageError
from seit.pretraining.alarms import alarms_of, new_alarms
from seit.pretraining.pictures import reconstruction_rows
from seit.pretraining.probes import (
    ProbeConfig,
    Probes,
    effective_rank,
    feature_std,
    fit_linear,
    knn_predict,
    linear_predict,
)
from seit.training import Ranks, make_augment, training_rows


def draw(count, dim=6, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (5, 10.0), (99, 0.5)])
def test_neighbours_vote_as_in_the_paper(k, temperature):
    learned, tested = draw(40), draw(30, seed=1)
    labels = torch.arange(40) % 4
    found = knn_predict(learned, labels, tested, k=k, temperature=temperature)
    for vector, prediction in zip(tested.double(), found.tolist(), strict=True):
        cosines = [float(F.cosine_similarity(vector, one.double(), dim=0)) for one in learned]
        votes = [0.0] * 4
        for place in sorted(range(40), key=lambda place: -cosines[place])[:k]:
            votes[int(labels[place])] += math.exp(cosines[place] / temperature)
        assert prediction == int(np.argmax(votes))


def test_a_tiny_temperature_does_not_overflow():
    labels = torch.arange(20) % 2
    found = knn_predict(draw(20), labels, draw(20), k=5, temperature=1e-6)
    assert torch.equal(found, labels), "each is its own nearest neighbour"


def test_the_linear_probe_is_at_the_optimum():
    x, labels = draw(200).double(), torch.arange(200) % 3
    x[:, 0] += labels
    weights, bias = fit_linear(x, labels, penalty=1e-2)
    probabilities = (x @ weights + bias).softmax(1)
    errors = (probabilities - F.one_hot(labels, 3)) / len(x)
    assert (x.T @ errors + 1e-2 * weights).abs().max() < 1e-5
    assert errors.sum(0).abs().max() < 1e-5


def test_the_linear_probe_tells_what_is_linear_and_is_the_same_again():
    x, labels = draw(300), torch.arange(300) % 5
    x[torch.arange(300), labels] += 6
    with torch.inference_mode():
        first = linear_predict(x[:200] * 1e3, labels[:200], x[200:] * 1e3, penalty=1e-4)
        again = linear_predict(x[:200] * 1e3, labels[:200], x[200:] * 1e3, penalty=1e-4)
    assert (first == labels[200:]).double().mean() > 0.95
    assert torch.equal(first, again)


def test_spread_of_features_by_closed_forms():
    same = torch.ones(50, 8)
    assert feature_std(same) == pytest.approx(0, abs=1e-6)
    assert effective_rank(same) == 1
    line = torch.linspace(-1, 1, 50)[:, None] * torch.ones(8)
    assert effective_rank(line) == pytest.approx(1)
    ends = torch.cat([torch.eye(8), -torch.eye(8)])
    assert effective_rank(ends) == pytest.approx(8)
    assert feature_std(ends) == pytest.approx(1)
    assert feature_std(draw(20_000, 16)) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("val_split", ["val", "none"])
def test_probes_see_no_sample_outside_of_the_fraction(pattern_store, val_split, monkeypatch):
    config = changed(data={"fraction": 0.25, "val_split": val_split})
    split, cpu = pattern_store["train"], torch.device("cpu")
    augment = make_augment(pattern_store, config, cpu, with_train=False)
    read = []
    monkeypatch.setattr(
        Probes, "_inputs", lambda self, one, rows: read.append((one.name, rows)) or iter([rows])
    )
    probes = Probes(pattern_store, config, config.probe, augment, Ranks(0, 1, cpu))
    probes.measure(lambda rows: torch.rand(len(rows), 4))
    used = [set(rows) for name, rows in read if name == "train"]
    assert used == [set(training_rows(split, config))]
    assert len(used[0]) == 9, "three a class"


@pytest.mark.parametrize(
    "settings",
    [{"samples": -1}, {"val_samples": 1}, {"neighbours": 0}, {"temperature": 0}, {"penalty": 0}],
)
def test_probes_that_cannot_be(settings):
    with pytest.raises(UsageError, match="probe"):
        ProbeConfig(**settings)


def val(step, **figures):
    return {"step": step, "split": "val", "feature_std": 0.9, "effective_rank": 30.0, **figures}


def test_each_alarm_is_raised_once():
    metrics = [
        val(1),
        {"step": 1, "split": "train", "loss": 3.0},
        val(2, effective_rank=9.0),
        val(3, effective_rank=8.0, code_share=0.95),
        val(4, feature_std=0.01, effective_rank=1.2),
    ]
    assert new_alarms([], metrics[0]) == []
    assert len(new_alarms(metrics[:2], metrics[2])) == 1
    assert "9.0 directions, after 30.0" in new_alarms(metrics[:2], metrics[2])[0]
    assert ["one and the same code" in text for text in new_alarms(metrics[:3], metrics[3])] == [
        True
    ]
    assert len(new_alarms(metrics[:4], metrics[4])) == 2
    found = alarms_of(metrics)
    assert [text.split(":")[0] for text in found] == ["step 2", "step 3", "step 4", "step 4"]


def test_neighbours_that_stay_at_chance_for_half_of_a_run_are_an_alarm():
    lost = [val(step, knn_top1=0.11, chance=0.1) for step in range(6)]
    found = [new_alarms(lost[:number], lost[number]) for number in range(6)]
    assert [len(texts) for texts in found] == [0, 0, 0, 0, 1, 0]
    assert "no better than chance (k-NN 11.00%)" in found[4][0]
    better = [*lost[:3], val(3, knn_top1=0.2, chance=0.1), *lost[3:5]]
    assert not alarms_of(better)
    assert not alarms_of([val(step) for step in range(6)])


def all_alarms(figures, earlier):
    """Words of each alarm about an evaluation, from all figures up to it."""
    rank = figures.get("effective_rank")
    highest = max([one.get("effective_rank") or 0.0 for one in earlier], default=0.0)
    latest = [*earlier, figures][-5:]
    found = {
        "nearly the same": figures["feature_std"] < 0.1,
        "directions only": rank is not None and rank < 2,
        f"after {highest:.1f} before": rank is not None and 3 * rank < highest,
        "no better than chance": len(latest) == 5
        and all("knn_top1" in one and one["knn_top1"] <= 1.2 * one["chance"] for one in latest),
        "the same code": figures["code_share"] > 0.9,
    }
    return [words for words, holds in found.items() if holds]


def test_alarms_are_those_of_all_figures_up_to_each_evaluation():
    random = np.random.default_rng(0)
    some = 0
    for _ in range(100):
        metrics, expected, said = [], [], set()
        for step in range(random.integers(1, 40)):
            one = val(
                step,
                feature_std=float(random.uniform(0.05, 1)),
                effective_rank=random.choice(
                    [None, 1.5, 5.0, 9.0, 30.0], p=[0.1, 0.1, 0.1, 0.4, 0.3]
                ),
                code_share=float(random.uniform(0, 0.95)),
            )
            if random.random() < 0.9:
                one |= {"knn_top1": float(random.choice([0.11, 0.3], p=[0.8, 0.2])), "chance": 0.1}
            for words in all_alarms(one, metrics):
                kind = "fall" if words.startswith("after") else words
                if kind not in said:
                    expected.append((f"step {step}: ", words))
                said.add(kind)
            metrics.append(one)
        found = alarms_of(metrics)
        assert len(found) == len(expected)
        for text, (start, words) in zip(found, expected, strict=True):
            assert text.startswith(start)
            assert words in text
        some += len(found)
    assert some > 200


def test_alarms_of_a_run_look_at_each_evaluation_once():
    class Figures(dict):
        asked = 0

        def get(self, name):
            Figures.asked += 1
            return super().get(name)

    assert not alarms_of([Figures(val(step)) for step in range(100)])
    assert Figures.asked <= 10 * 100


class Painter:
    """A tokenizer whose pictures are 4×4 pixels a cell, as bright as the id."""

    def __init__(self, modality="image"):
        self.modality = modality

    def decode(self, tokens):
        grey = torch.from_numpy(tokens).repeat_interleave(4, 1).repeat_interleave(4, 2)
        return grey[..., None].expand(-1, -1, -1, 3).to(torch.uint8)


def test_hidden_cells_are_grey_and_completed_ones_are_told():
    original = np.arange(12).reshape(1, 3, 4) * 20
    masked = np.zeros((1, 3, 4), dtype=bool)
    masked[0, 0, 1] = masked[0, 2, 3] = True
    predicted = original.copy()
    predicted[0, 0, 1] = 99
    ((title, pictures),) = reconstruction_rows(
        Painter(), ["cat.png"], original=original, masked=masked, predicted=predicted
    )
    assert title == "cat.png: 17% hidden, 50% of it told"
    whole, seen, completed = (one.picture[..., 0] for one in pictures)
    assert whole.shape == (12, 16)
    assert (seen[:4, 4:8] == 128).all()
    assert (seen[8:, 12:] == 128).all()
    assert (seen == 128).sum() == 32
    assert (completed[:4, 4:8] == 99).all()
    assert np.array_equal(completed[4:], whole[4:])


def test_features_that_are_not_finite_have_no_rank():
    features = draw(20)
    features[3, 2] = math.nan
    assert math.isnan(effective_rank(features))


def test_a_probe_of_many_classes_has_weights_for_those_that_it_saw():
    x = torch.eye(3).repeat(4, 1)
    labels = torch.tensor([7, 21_840, 300]).repeat(4)
    assert torch.equal(linear_predict(x, labels, x, penalty=1e-4), labels)
