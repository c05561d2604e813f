"""Runs with weights in few bits: figures, bits of each layer, accuracy control, resumption."""

import pytest
import torch
from scipy.stats import spearmanr

import seit
from seit.analysis.runs.compare import compare_runs
from seit.api.plans import plan_run
from seit.compression.control import most_sensitive_first
from seit.compression.dev import Dev, DevFigures
from seit.compression.subject import Subject
from seit.compression.weights.ablation import rank_correlation
from seit.compression.weights.network import with_weights
from seit.errors import UsageError
from seit.tensors import read_described
from seit.training import Run, training_rows

FEW = {"compression.samples": 12, "compression.dev_samples": 15}


def compressed(learned, store, out, method, **changes):
    return seit.compress(learned, store=store, out=out, method=method, **FEW, **changes)


def subject_of(learned, store):
    config = plan_run("compress", store, init_from=learned, **FEW)
    return Subject.open(Run.open(learned), config, store)


def logits(subject, run):
    weights = Run.open(run).load_weights()
    changed = with_weights(subject.model, {})
    changed.load_state_dict(weights)
    rows = subject.dev_rows
    with torch.inference_mode():
        return torch.cat([changed(inputs) for inputs in subject.inputs(rows)])


def test_dev_samples_are_others_than_those_to_calibrate_with(learned, pattern_store):
    subject = subject_of(learned, pattern_store)
    labels = pattern_store["train"].labels
    for rows, count in ((subject.calibration_rows, 12), (subject.dev_rows, 15)):
        assert len(set(rows)) == count
        assert sorted((labels[rows] == one).sum() for one in range(3)) == [count // 3] * 3
    assert not set(subject.calibration_rows) & set(subject.dev_rows)


def test_a_small_split_calibrates_with_half_of_its_samples(learned, pattern_store):
    config = plan_run("compress", pattern_store, init_from=learned)
    subject = Subject.open(Run.open(learned), config, pattern_store)
    assert len(subject.calibration_rows) == len(subject.dev_rows) == 18


def test_samples_outside_of_the_fraction_are_not_used(learned, pattern_store):
    split, changes = pattern_store["train"], {**FEW, "compression.samples": 7, "data.fraction": 0.5}
    config = plan_run("compress", pattern_store, init_from=learned, **changes)
    subject = Subject.open(Run.open(learned), config, pattern_store)
    kept = set(training_rows(split, config))
    assert len(kept) == 18
    assert len(subject.calibration_rows) == 7
    assert {*subject.calibration_rows, *subject.dev_rows} == kept
    for count in (3, 9, 12, 18):
        first = split.labels[subject.balanced_rows[:count]]
        assert sorted((first == one).sum() for one in range(3)) == [count // 3] * 3


def rounded(learned, store, out, rounding):
    changes = {
        "compression.rounding": rounding,
        "compression.clip": "minmax",
        "compression.adaround_steps": 60,
    }
    compressed(learned, store, out, "w3", **changes)
    return out


@pytest.fixture(scope="module")
def nearest(learned, pattern_store, tmp_path_factory):
    """Return a run of weights rounded to the nearest."""
    return rounded(learned, pattern_store, tmp_path_factory.mktemp("w3") / "nearest", "nearest")


@pytest.mark.parametrize("rounding", ["gptq", "adaround"])
def test_layers_rounded_for_their_inputs_keep_logits(
    learned, nearest, pattern_store, tmp_path, rounding
):
    rounded(learned, pattern_store, tmp_path / rounding, rounding)
    subject = subject_of(learned, pattern_store)
    exact = logits(subject, learned)
    drifts = [(logits(subject, one) - exact).norm() for one in (tmp_path / rounding, nearest)]
    assert drifts[0] < drifts[1]
    bits = Run.open(tmp_path / rounding).info["bits"]
    assert bits["patch_embed.proj"] == bits["head"] == 8
    assert {one for name, one in bits.items() if name.startswith("blocks")} == {3}


def test_an_interrupted_run_resumes_to_the_same_bytes(learned, pattern_store, tmp_path):
    compressed(learned, pattern_store, tmp_path / "whole", "w2")

    def stop(done, total, figures):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compressed(learned, pattern_store, tmp_path / "again", "w2", progress=stop)
    assert not (tmp_path / "again" / "model.safetensors").exists()
    seen = []
    result = compressed(
        learned,
        pattern_store,
        tmp_path / "again",
        "w2",
        resume=True,
        progress=lambda done, total, figures: seen.append((done, total)),
    )
    assert seen == [(done, 10) for done in range(11)]
    files = [tmp_path / name / "model.safetensors" for name in ("whole", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert Run.open(tmp_path / "again").info["status"] == "finished"
    assert seit.evaluate(tmp_path / "again", store=pattern_store).top1 == result.top1


def test_control_leaves_the_most_sensitive_layers_in_float(
    learned, pattern_store, tmp_path, monkeypatch
):
    subject = subject_of(learned, pattern_store)
    exact = logits(subject, learned)

    def figures(dev, model):
        """Closeness of the logits, which is finer than the accuracy on a few samples."""
        with torch.inference_mode():
            found = torch.cat([model(inputs) for inputs, _ in dev.inputs()])
        change = float((found - exact).norm() / exact.norm())
        return DevFigures(top1=1 - change, loss=change)

    monkeypatch.setattr(Dev, "figures", figures)

    def drop(max_drop):
        changes = {"compression.rounding": "nearest", "compression.max_drop": max_drop}
        out = tmp_path / str(max_drop)
        compressed(learned, pattern_store, out, "w2", **changes)
        return Run.open(out), Run.open(out).info["accuracy_control"]

    _, free = drop(1.0)
    assert free["kept_float"] == []
    allowed = free["drop"] / 2
    run, control = drop(allowed)
    assert control["drop"] <= allowed < control["top1_before"] - control["top1"][-2]
    assert control["top1"][0] == free["top1"][0]
    in_float = control["kept_float"]
    assert {name for name, bits in run.info["bits"].items() if bits == 32} == set(in_float)
    weights, before = run.load_weights(), Run.open(learned).load_weights()
    for name in run.info["bits"]:
        same = torch.equal(weights[f"{name}.weight"], before[f"{name}.weight"])
        assert same == (name in in_float)
    model = with_weights(subject.model, {})
    model.load_state_dict(weights)
    assert Dev.of(subject).figures(model).top1 == control["top1"][-1]
    assert "Accuracy control" in (run.path / "report.html").read_text()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([0, 0, 0, 0, 1, 2, 3, 4], [4, 3, 2, 1, 5, 6, 7, 8]),
        ([3, 1, 2], [1, 2, 2]),
        ([5, 1, 4, 2], [1, 2, 3, 4]),
    ],
)
def test_equal_scores_share_their_ranks(first, second):
    named = [dict(enumerate(scores)) for scores in (first, second)]
    expected = spearmanr(first, second).statistic
    assert rank_correlation(*named) == pytest.approx(expected)


def test_equal_scores_alone_have_no_order():
    assert rank_correlation({1: 0.0, 2: 0.0, 3: 0.0}, {1: 1.0, 2: 2.0, 3: 3.0}) is None


def test_a_compressed_run_is_compared_with_its_source(learned, pattern_store, tmp_path):
    compressed(learned, pattern_store, tmp_path / "w4", "w4")
    found = compare_runs([learned, tmp_path / "w4"])
    assert found.results["top1"][1].value == Run.open(tmp_path / "w4").info["result"]["top1"]


def test_mixed_precision_fills_its_budget(learned, pattern_store, tmp_path):
    out = tmp_path / "mixed"
    changes = {"compression.budget": 0.25}
    result = compressed(learned, pattern_store, out, "mixed", **changes)
    assert 0.2 * result.bytes_before < result.bytes <= 0.25 * result.bytes_before
    run = Run.open(out)
    bits, note = run.info["bits"], run.info["mixed"]
    assert len(set(bits.values())) > 1
    assert note["harm"].keys() == {name for name in bits if name.startswith("blocks")}
    assert -1 <= note["rank_correlation"] <= 1
    card, _ = read_described(out / "model.safetensors")
    assert {f"{name}.weight": one for name, one in bits.items()} == {
        name: one["bits"] for name, one in card["quantized"].items()
    }
    report = (out / "report.html").read_text()
    assert "Bits by layer" in report
    assert "Sensitivity" in report
    spent = sum(
        note["mean_trace"][name] > 0 and one == max(bits.values()) for name, one in bits.items()
    )
    assert spent


def test_a_budget_that_cannot_be_met_says_the_least_that_can(learned, pattern_store, tmp_path):
    changes = {"compression.budget": 0.02}
    with pytest.raises(UsageError, match="least possible is") as caught:
        compressed(learned, pattern_store, tmp_path / "mixed", "mixed", **changes)
    assert not Run.exists(tmp_path / "mixed")
    least = float(str(caught.value).split("compression.budget to ")[1].split()[0])
    changes = {"compression.budget": least}
    result = compressed(learned, pattern_store, tmp_path / "least", "mixed", **changes)
    assert result.bytes <= least * result.bytes_before
    blocks = [
        bits for name, bits in Run.open(tmp_path / "least").info["bits"].items() if "blocks" in name
    ]
    assert set(blocks) == {2}


@pytest.mark.parametrize(
    ("name", "value"),
    [("budget", 0.0), ("bits", [9]), ("bits", []), ("max_drop", 2.0), ("dev_samples", 0)],
)
def test_settings_out_of_range_are_refused(pattern_store, name, value):
    with pytest.raises(UsageError, match=f"compression.{name}"):
        plan_run("compress", pattern_store, **{f"compression.{name}": value})


def test_layers_are_ordered_by_harm():
    assert most_sensitive_first({"a": 0.1, "b": 0.4, "c": -0.2}) == ["b", "a", "c"]
