"""What a person sees of runs: report, loggers, several seeds, list and comparison."""

import base64
import io
import json
import math
import re
import sys
import types
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, strategies as st
from PIL import Image
from safetensors.numpy import save_file

import seit
from seit.analysis.runs.compare import compare_runs
from seit.analysis.runs.page import result_rows, say_verdicts
from seit.config import build, to_mapping
from seit.errors import DamagedError, UsageError
from seit.ingest import TokenizeConfig, tokenize
from seit.locks import locked_folder
from seit.report import wilson_interval
from seit.tokenizers import MelConfig, decode_pictures, mel_pictures
from seit.tokenizers.fitted.dmel import DMelTokenizer
from seit.training import Run, TrainConfig, train
from seit.training.loggers import make_loggers
from seit.training.report import write_run_report
from seit.training.seeds import train_seeds
from seit.training.significance import (
    incomplete_beta,
    mcnemar_p,
    paired_interval,
    student_quantile,
    welch_interval,
)

CLASSES = ("blue", "green", "red")
CONFIG = build(
    TrainConfig,
    {
        "model": {
            "name": "vit_tiny_patch16_224",
            "stem": "4/4/0",
            "embed_dim": 16,
            "depth": 1,
            "num_heads": 1,
        },
        "data": {"batch_size": 8},
        "schedule": {"steps": 4, "warmup_steps": 1},
        "run": {"device": "cpu", "eval_every": 2, "log_every": 1, "loggers": []},
    },
    origin="test",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    corpus = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 6)):
        for label, name in enumerate(CLASSES):
            (corpus / split / name).mkdir(parents=True)
            for number in range(count):
                values = random.integers(60, 160, (64, 64, 3), np.uint8)
                values[..., label] += 80
                Image.fromarray(values).save(corpus / split / name / f"{number}.png")
    path = tmp_path_factory.mktemp("stores") / "tokens"
    tokenize(corpus, path, TokenizeConfig(size=64, codes=16))
    return seit.open(path)


@pytest.fixture(scope="module")
def finished(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    train(CONFIG, store, out=out)
    return Run.open(out)


# ------------------------------------------------------------------------------------ the report


def keep_predictions(run, predicted, labels):
    tensors = {"predictions": np.asarray(predicted, np.int64)}
    tensors["labels"] = np.asarray(labels, np.int64)
    save_file(tensors, run.path / "predictions.safetensors")


def sections(run):
    tree = ET.fromstring((run.path / "report.html").read_text())
    return {one.findtext("h2"): one for one in tree.iter("section")}


def mistakes_of(run):
    """The rows of the section of mistakes: label → (pictures, captions)."""
    rows = {}
    for row in sections(run)["What was mistaken"].findall(".//div[@class='sheet']/div"):
        pictures = [
            np.asarray(Image.open(io.BytesIO(base64.b64decode(one.get("src").split(",")[1]))))
            for one in row.iter("img")
        ]
        captions = [one.text for one in row.iter("div") if one.get("class") == "caption"]
        rows[row.findtext("div[@class='row-label']")] = (pictures, captions)
    return rows


def test_the_report_shows_what_was_mistaken_for_what(finished, store):
    split = store["val"]
    predicted = split.labels.copy()
    greens, reds = (np.flatnonzero(split.labels == label) for label in (1, 2))
    predicted[greens[[0, 1, 2, 4, 5]]] = 0
    predicted[reds[3]] = 1
    keep_predictions(finished, predicted, split.labels)
    write_run_report(finished, store=store)
    rows = mistakes_of(finished)
    assert list(rows) == [
        "green taken for blue: 5 samples, 83% of the class",
        "red taken for green: 1 sample, 17% of the class",
    ]
    decoded = store.load_tokenizer().decode(torch.from_numpy(split.tokens[:].astype(np.int64)))
    for (pictures, captions), chosen in zip(
        rows.values(), (greens[[0, 1, 2, 4]], reds[[3]]), strict=True
    ):
        assert captions == [split.keys[number] for number in chosen]
        np.testing.assert_array_equal(pictures, decoded[chosen].numpy())


def test_the_report_draws_rates_and_wants_no_store(finished):
    (finished.path / "predictions.safetensors").unlink(missing_ok=True)
    write_run_report(finished)
    found = sections(finished)
    assert list(found) == [
        *("Result", "Footprint", "Learning curves", "Confusion", "Most often confused"),
        *("Classes", "Throughput", "Settings"),
    ]
    charts = found["Throughput"].findall("figure")
    assert [one.findtext("figcaption/strong") for one in charts] == [
        "Training rate",
        "Waiting for data",
        "Learning rate",
    ]
    rates = [one["lr"] for one in finished.metrics() if one["split"] == "train"]
    heights = [
        float(pair.split(",")[1]) for pair in charts[2].find(".//polyline").get("points").split()
    ]
    assert len(heights) == len(rates) == 4
    np.testing.assert_array_equal(np.argsort(heights), np.argsort(-np.array(rates)))


def test_damaged_predictions_do_not_spoil_a_report(finished, store):
    for predicted in ([0, 1], np.full(18, 3), np.full(18, -1)):
        keep_predictions(finished, predicted, store["val"].labels)
        write_run_report(finished, store=store)
        (text,) = sections(finished)["What was mistaken"].findall("p")
        assert "predictions.safetensors" in text.text
    (finished.path / "predictions.safetensors").unlink()


def test_sounds_are_shown_as_spectrograms():
    mel = MelConfig(window=1600, hop=160, taper=400, bands=16, frames=12, patch=(4, 4))
    tokenizer = DMelTokenizer(mel)
    tokens = np.random.default_rng(0).integers(0, 16, (3, *tokenizer.grid)).astype(np.uint16)
    pictures = decode_pictures(tokenizer, tokens)
    assert pictures.shape == (3, 16, 12, 3)
    expected = mel_pictures(tokenizer.decode(torch.from_numpy(tokens.astype(np.int64))))
    np.testing.assert_array_equal(pictures, expected)


# ----------------------------------------------------------------------------------- the loggers


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {
        tag: [(one.step, one.value) for one in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_tensorboard_goes_on_where_a_run_is_resumed(tmp_path):
    pytest.importorskip("tensorboard")
    settings = to_mapping(CONFIG)
    (logger,) = make_loggers(("auto", "tensorboard"), tmp_path, settings)
    for step in (1, 2, 3):
        logger.log(step, "train", {"loss": 10.0 + step})
    logger.log(2, "val", {"top1": 0.5})
    logger.finish(None)
    assert scalars(tmp_path)["train/loss"] == [(1, 11), (2, 12), (3, 13)]
    (logger,) = make_loggers(("auto",), tmp_path, settings, step=2)
    logger.log(3, "train", {"loss": 23.0})
    logger.finish({"top1": 0.5})
    assert scalars(tmp_path) == {"train/loss": [(1, 11), (2, 12), (3, 23)], "val/top1": [(2, 0.5)]}


class FakeRun:
    """Takes what W&B's and Trackio's runs take."""

    def __init__(self, **given):
        self.given, self.logged, self.summary, self.ended = given, [], {}, None
        self.id = given.get("id") or "new-id"

    def log(self, metrics, step=None):
        self.logged.append((step, metrics))

    def finish(self, **ended):
        self.ended = ended


def fake(monkeypatch, name, **attributes):
    module = types.ModuleType(name)
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_resumed_run_goes_on_under_its_id(name, tmp_path, monkeypatch):
    runs = []
    fake(monkeypatch, name, init=lambda **given: runs.append(FakeRun(**given)) or runs[-1])
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    folder = tmp_path / "my-run"
    folder.mkdir()
    (logger,) = make_loggers((name,), folder, {"optim": {"lr": 1.0}})
    logger.log(5, "train", {"loss": 2.0, "lr": 0.1})
    logger.finish(None)
    (logger,) = make_loggers((name,), folder, {"optim": {"lr": 1.0}}, step=5)
    logger.finish({"top1": 0.7})
    first, second = runs
    assert first.logged == [(5, {"train/loss": 2.0, "train/lr": 0.1})]
    assert first.given["project"] == "seit"
    assert first.given["config"] == {"optim": {"lr": 1.0}}
    assert first.given["resume"] == second.given["resume"] == "allow"
    if name == "wandb":
        assert first.given["name"] == "my-run"
        assert (first.given["id"], second.given["id"]) == (None, "new-id")
        assert (first.ended, second.ended) == ({"exit_code": 1}, {"exit_code": 0})
        assert second.summary == {"result/top1": 0.7}
    else:
        assert first.given["name"] == second.given["name"]
        assert first.given["name"].startswith("my-run-")
        assert second.logged == [(None, {"result/top1": 0.7})]


def test_mlflow_keeps_settings_once_and_figures_by_step(tmp_path, monkeypatch):
    calls = []

    def note(name):
        def call(*arguments, **named):
            calls.append((name, *arguments, named))
            info = types.SimpleNamespace(run_id="m1")
            return types.SimpleNamespace(info=info)

        return call

    names = ("set_experiment", "start_run", "log_params", "log_metrics", "end_run")
    fake(monkeypatch, "mlflow", **{name: note(name) for name in names})
    for variable in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(variable, raising=False)
    settings = {"group": {f"n{number}": number for number in range(150)}}
    (logger,) = make_loggers(("mlflow",), tmp_path, settings)
    logger.log(5, "val", {"top1": 0.4})
    logger.finish(None)
    assert [call[0] for call in calls] == [
        *("set_experiment", "start_run", "log_params", "log_params", "log_metrics", "end_run")
    ]
    assert {**calls[2][1], **calls[3][1]} == {f"group.n{n}": str(n) for n in range(150)}
    assert calls[4] == ("log_metrics", {"val/top1": 0.4}, {"step": 5, "run_id": "m1"})
    assert calls[5][1] == "KILLED"
    calls.clear()
    (logger,) = make_loggers(("mlflow",), tmp_path, settings, step=5)
    logger.finish({"top1": 0.6})
    assert [call[0] for call in calls] == ["start_run", "log_metrics", "end_run"]
    assert calls[0] == ("start_run", {"run_id": "m1"})
    assert calls[2][1] == "FINISHED"


def test_loggers_that_are_not_there_are_said_so(tmp_path, monkeypatch):
    assert make_loggers((), tmp_path, {}) == ()
    with pytest.raises(UsageError, match=r"'tensorbord'; there are auto, tensorboard, wandb"):
        make_loggers(("tensorbord",), tmp_path, {})
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match="pip install wandb"):
        make_loggers(("wandb",), tmp_path, {})
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert make_loggers(("auto",), tmp_path, {}) == ()
    (tmp_path / "loggers.json").write_text("{")
    fake(monkeypatch, "wandb", init=FakeRun)
    with pytest.raises(DamagedError, match="remove it"):
        make_loggers(("wandb",), tmp_path, {})


def test_a_logger_that_cannot_start_is_left_out(tmp_path, monkeypatch):
    def refuse(**given):
        raise ConnectionError("no route\nto host")

    fake(monkeypatch, "wandb", init=refuse)
    fake(monkeypatch, "trackio", init=FakeRun)
    with pytest.warns(UserWarning, match="wandb did not start and is left out .no route to host.;"):
        (left,) = make_loggers(("wandb", "trackio"), tmp_path, {})
    left.log(1, "train", {"loss": 1.0})
    (tmp_path / "loggers.json").write_text('{"mlflow": "m1"}')
    fake(monkeypatch, "mlflow", start_run=refuse)
    with pytest.warns(UserWarning, match="the logger mlflow did not start"):
        assert make_loggers(("mlflow",), tmp_path, {}, step=5) == ()


def test_a_failing_logger_does_not_stop_the_run(tmp_path, monkeypatch):
    class Failing(FakeRun):
        def log(self, metrics, step=None):
            raise ConnectionError("no route")

    fake(monkeypatch, "wandb", init=lambda **given: Failing(**given))
    (logger,) = make_loggers(("wandb",), tmp_path, {})
    with pytest.warns(UserWarning, match=r"wandb failed and is switched off \(no route\)"):
        logger.log(1, "train", {"loss": 1.0})
    logger.log(2, "train", {"loss": 1.0})
    logger.finish({"top1": 0.5})


# ------------------------------------------------------------------------------------- the seeds


@pytest.fixture(scope="module")
def seeded(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("seeds") / "three"
    ticks = []
    result = train_seeds(
        CONFIG, store, out, seeds=2, progress=lambda done, total, _: ticks.append((done, total))
    )
    return out, result, ticks


def test_seeds_differ_in_nothing_but_the_seed(seeded):
    out, result, ticks = seeded
    assert ticks == [(step, 8) for step in range(1, 9)]
    runs = [Run.open(out / f"seed-{seed}") for seed in (0, 1)]
    configs = [run.config for run in runs]
    assert [config.run.seed for config in configs] == [0, 1]
    assert replace(configs[1], run=configs[0].run) == configs[0]
    found = json.loads((out / "seeds.json").read_text())
    assert found["status"] == "finished"
    assert [one["seed"] for one in found["runs"]] == [0, 1]
    losses = [run.info["result"]["loss"] for run in runs]
    assert losses[0] != losses[1]
    assert found["summary"]["loss"] == pytest.approx(
        {
            "mean": sum(losses) / 2,
            "std": abs(losses[0] - losses[1]) / math.sqrt(2),
            "min": min(losses),
            "max": max(losses),
        }
    )
    assert result.loss.mean == found["summary"]["loss"]["mean"]
    page = ET.fromstring((out / "report.html").read_text())
    lines = [one.get("class") for one in page.findall(".//polyline")]
    assert lines == ["c0 faint", "c0 faint", "c0"] * 5


def test_seeds_are_gone_on_with_and_added_to(seeded, store):
    out, result, _ = seeded
    with pytest.raises(UsageError, match="pass --resume"):
        train_seeds(CONFIG, store, out, seeds=2)
    other = replace(CONFIG, optim=replace(CONFIG.optim, lr=0.1))
    with pytest.raises(UsageError, match=r"optim\.lr was .* and is 0\.1"):
        train_seeds(other, store, out, seeds=2, resume=True)
    with pytest.raises(UsageError, match="holds 2 seeds, more than 1"):
        train_seeds(CONFIG, store, out, seeds=1, resume=True)
    with pytest.raises(UsageError, match="at least 1"):
        train_seeds(CONFIG, store, out, seeds=0)
    with pytest.raises(UsageError, match="something else"):
        train_seeds(CONFIG, store, out / "seed-0", seeds=1)
    before = (out / "seed-1" / "model.safetensors").stat().st_mtime_ns
    more = train_seeds(CONFIG, store, out, seeds=3, resume=True)
    assert {seed: more.results[seed] for seed in (0, 1)} == result.results
    assert (out / "seed-1" / "model.safetensors").stat().st_mtime_ns == before
    assert list(more.results) == [0, 1, 2]


def test_a_refused_attempt_is_not_in_the_way(store, tmp_path):
    large = replace(CONFIG, data=replace(CONFIG.data, batch_size=1000))
    with pytest.raises(UsageError, match="is larger than"):
        train_seeds(large, store, tmp_path / "sweep", seeds=2)
    assert list(train_seeds(CONFIG, store, tmp_path / "sweep", seeds=1).results) == [0]


# -------------------------------------------------------------------------------- the statistics


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_a_sign_test(first, second):
    total, fewer = first + second, min(first, second)
    tail = sum(math.comb(total, count) for count in range(fewer + 1)) / 2**total
    assert mcnemar_p(first, second) == pytest.approx(min(1, 2 * tail), rel=1e-9)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_wilson_holds_the_shares_that_the_count_does_not_rule_out(total, share):
    hits = round(share * total)
    interval = wilson_interval(hits, total)
    assert -1e-12 <= interval.low <= hits / total <= interval.high <= 1 + 1e-12
    for bound in (interval.low, interval.high):
        deviation = math.sqrt(max(0.0, bound * (1 - bound)) / total)
        assert abs(hits / total - bound) == pytest.approx(1.959964 * deviation, abs=1e-6)


def test_quantiles_of_student_follow_closed_forms_and_tables():
    for probability in (0.6, 0.9, 0.975, 0.9995):
        share = 2 * probability - 1
        assert student_quantile(probability, 1) == pytest.approx(math.tan(math.pi * share / 2))
        assert student_quantile(probability, 2) == pytest.approx(
            share * math.sqrt(2 / (1 - share**2))
        )
    for freedom, expected in ((4, 2.776445), (10, 2.228139), (30, 2.042272), (1e7, 1.959964)):
        assert student_quantile(0.975, freedom) == pytest.approx(expected, abs=1e-6)
    assert incomplete_beta(2, 3, 0.4) == pytest.approx(0.5248)


def test_welch_interval():
    first, second = [0.50, 0.52, 0.54], [0.56, 0.60, 0.64]
    interval = welch_interval(first, second)
    # Standard errors² are 0.0004/3 and 0.0016/3; 50/17 degrees of freedom.
    half = student_quantile(0.975, 50 / 17) * math.sqrt(0.002 / 3)
    assert (interval.low, interval.high) == pytest.approx((0.08 - half, 0.08 + half))
    assert welch_interval([1, 1], [2, 2]).low == 1


def test_paired_interval():
    first, second = [0.50, 0.60, 0.70, 0.80], [0.52, 0.61, 0.73, 0.82]
    interval = paired_interval(first, second)
    # Differences of 2, 1, 3 and 2 points: mean 2, variance 2/3; t is 3.182 with 3 degrees.
    half = 3.182446 * math.sqrt(2 / 3 / 4) / 100
    assert (interval.low, interval.high) == pytest.approx((0.02 - half, 0.02 + half))
    with pytest.raises(ValueError, match="zip"):
        paired_interval([0.1, 0.2], [0.1])


# ------------------------------------------------------------------------------- the comparisons


def write_run(path, *, lr=0.1, seed=0, predicted, labels, seal="s" * 64, metrics=True, **changes):
    """A finished run's folder, made by hand."""
    path.mkdir(parents=True)
    settings = {"model": {"name": "vit"}, "optim": {"lr": lr}, "run": {"seed": seed}}
    (path / "config.yaml").write_text(yaml.safe_dump(settings))
    predicted, labels = np.array(predicted), np.array(labels)
    known = labels >= 0
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (labels[known], predicted[known]), 1)
    result = {"top1": float((predicted == labels)[known].mean()), "top5": 1.0, "loss": 0.5}
    info = {
        "status": "finished",
        "identity": {"store": seal, "classes": list(CLASSES)},
        "result": {**result, "steps": 10, "samples_per_second": 100.0},
        "confusion": confusion.tolist(),
        **changes,
    }
    (path / "run.json").write_text(json.dumps(info))
    lines = [
        {"step": 5, "split": "train", "loss": 1.0, "lr": lr, "samples_per_second": 90.0},
        {"step": 10, "split": "val", **result},
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tensors = {"predictions": predicted, "labels": labels}
    save_file(tensors, path / "predictions.safetensors")
    return path


LABELS = [0, 0, 0, 1, 1, 1, 2, 2, -1]
A = [0, 0, 1, 1, 1, 1, 0, 0, -1]  # 5 of 8 right
B = [0, 1, 0, 1, 1, 1, 2, 2, -1]  # 7 of 8: three that A has wrong, one wrong that A has right


def test_paired_runs_are_tested_on_every_sample(tmp_path):
    first = write_run(tmp_path / "first", predicted=A, labels=LABELS)
    second = write_run(tmp_path / "second", lr=0.2, predicted=B, labels=LABELS)
    found = compare_runs([first, second])
    assert found.names == ("first", "second")
    assert found.settings == {"optim.lr": (0.1, 0.2)}
    top1 = found.results["top1"]
    assert [one.value for one in top1] == [5 / 8, 7 / 8]
    assert [one.difference for one in top1] == [None, 0.25]
    (verdict,) = found.verdicts
    assert (verdict.kind, verdict.only_first, verdict.only_this) == ("mcnemar", 1, 3)
    assert verdict.p_value == pytest.approx(2 * (1 + 4) / 16)
    assert {one.name: one.recalls for one in found.classes} == {
        "blue": (2 / 3, 2 / 3),
        "green": (1.0, 1.0),
        "red": (0.0, 1.0),
    }
    assert found.classes[0].name == "red"
    assert found.classes[0].differences == (None, 1.0)


def test_top5_of_few_classes_is_left_out_of_several_labels_too(tmp_path):
    several = {"label_sets": True}
    first = write_run(tmp_path / "first", predicted=A, labels=LABELS, **several)
    second = write_run(tmp_path / "second", lr=0.2, predicted=B, labels=LABELS, **several)
    found = compare_runs([first, second])
    assert (found.num_classes, found.classes) == (3, None)
    assert [row[0] for row in result_rows(found)] == ["top-1", "loss", "steps", "samples/s"]


def test_runs_on_different_data_get_an_interval_each(tmp_path):
    first = write_run(tmp_path / "a" / "run", predicted=A, labels=LABELS)
    second = write_run(tmp_path / "b" / "run", predicted=B, labels=LABELS, seal="t" * 64)
    found = compare_runs([first, second])
    assert found.names == (str(first), str(second))
    (verdict,) = found.verdicts
    assert (verdict.kind, verdict.same_data) == ("wilson", False)
    assert verdict.intervals == (wilson_interval(5, 8), wilson_interval(7, 8))
    (first / "predictions.safetensors").unlink()
    third = write_run(tmp_path / "c" / "run", predicted=A, labels=LABELS)
    (verdict,) = compare_runs([first, third]).verdicts
    assert (verdict.kind, verdict.same_data) == ("wilson", True)


def write_seeds(path, tops, *, start=0):
    for seed, top in enumerate(tops, start=start):
        predicted = [0] * top + [1] * (10 - top)
        write_run(path / f"seed-{seed}", seed=seed, predicted=predicted, labels=[0] * 10)
    document = {"status": "finished", "config": {}, "store": "s" * 64, "summary": {}}
    runs = [{"seed": seed, "folder": f"seed-{seed}"} for seed in range(start, start + len(tops))]
    (path / "seeds.json").write_text(json.dumps({**document, "runs": runs}))
    return path


def test_seeds_are_compared_by_their_means(tmp_path):
    first, second = (
        write_seeds(tmp_path / name, tops) for name, tops in (("x", (5, 6, 7)), ("y", (7, 8, 9)))
    )
    found = compare_runs([first, second])
    assert found.runs == (3, 3)
    assert found.settings == {}
    mean = found.results["top1"][1]
    assert (mean.value, mean.std, mean.difference) == pytest.approx((0.8, 0.1, 0.2))
    (verdict,) = found.verdicts
    assert verdict.kind == "paired"
    assert verdict.interval == paired_interval([0.5, 0.6, 0.7], [0.7, 0.8, 0.9])
    (text,) = say_verdicts(found)
    assert text.endswith("(paired by seed).")
    others = write_seeds(tmp_path / "z", (7, 8, 9), start=3)
    (verdict,) = compare_runs([first, others]).verdicts
    assert verdict.kind == "welch"
    assert verdict.interval == welch_interval([0.5, 0.6, 0.7], [0.7, 0.8, 0.9])
    assert found.classes[0].recalls[:2] == pytest.approx((0.6, 0.8))
    alone = write_run(tmp_path / "one", predicted=[0], labels=[0])
    (verdict,) = compare_runs([first, alone]).verdicts
    assert verdict.kind == "wilson"
    assert verdict.intervals == (None, wilson_interval(1, 1))


def test_what_cannot_be_compared(tmp_path):
    good = write_run(tmp_path / "good", predicted=A, labels=LABELS)
    with pytest.raises(UsageError, match="at least two"):
        compare_runs([good])
    with pytest.raises(UsageError, match="named twice"):
        compare_runs([good, good])
    with pytest.raises(UsageError, match="no run at"):
        compare_runs([good, tmp_path])
    begun = write_run(tmp_path / "begun", predicted=A, labels=LABELS, status="started")
    with pytest.raises(UsageError, match="has not finished"):
        compare_runs([good, begun])
    torn = write_run(tmp_path / "torn", predicted=A, labels=LABELS, confusion=[[1]])
    with pytest.raises(DamagedError, match="restore it"):
        compare_runs([good, torn])


def test_the_command_compares(tmp_path, call):
    first = write_run(tmp_path / "first", predicted=A, labels=LABELS)
    second = write_run(tmp_path / "second", lr=0.2, predicted=B, labels=LABELS)
    page = tmp_path / "page.html"
    code, out, _ = call("runs", "compare", first, second, "--out", page)
    assert code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert rows["top-1"] == ["top-1", "62.50%", "87.50%", "+25.00"]
    assert rows["optim.lr"] == ["optim.lr", "0.1", "0.2"]
    assert rows["red"] == ["red", "0.00%", "100.00%", "+100.00"]
    assert "samples right in second alone: 3, in first alone: 1; p = 0.62" in out
    tree = ET.fromstring(page.read_text())
    assert tree.findtext("head/title") == "first and second"
    assert not re.search(r"https?:", page.read_text())
    assert {one.get("class") for one in tree.iter("polyline")} == {"c0", "c1"}
    code, out, _ = call("runs", "compare", first, second, "--json")
    assert json.loads(out)["verdicts"][0]["p_value"] == pytest.approx(0.625)
    code, _, err = call("runs", "compare", first, second, "--out", page)
    assert (code, "already exists" in err) == (2, True)
    code, _, err = call("runs", "compare", first)
    assert (code, "at least two" in err) == (2, True)


def test_the_command_lists(tmp_path, call):
    write_run(tmp_path / "sweep" / "b", predicted=B, labels=LABELS)
    write_run(tmp_path / "a", predicted=A, labels=LABELS, status="started", result={})
    broken = write_run(tmp_path / "c", predicted=A, labels=LABELS)
    (broken / "run.json").write_text("{")
    code, out, _ = call("runs", "list", tmp_path)
    assert code == 0
    header, *rows = out.splitlines()
    assert header.split()[:4] == ["run", "status", "model", "steps"]
    assert [row.split()[:6] for row in rows] == [
        ["a", "interrupted", "vit", "10", "62.50%", "90"],
        ["c", "damaged", "–", "–", "–", "–"],
        ["sweep/b", "finished", "vit", "10", "87.50%", "100"],
    ]
    with locked_folder(tmp_path / "a"):
        assert call("runs", "list", tmp_path)[1].splitlines()[1].split()[:2] == ["a", "running"]
    (tmp_path / "a" / "failure.safetensors").touch()
    assert call("runs", "list", tmp_path)[1].splitlines()[1].split()[:2] == ["a", "failed"]
    code, out, _ = call("runs", "list", tmp_path, "--json")
    assert [one["name"] for one in json.loads(out)["runs"]] == ["a", "c", "sweep/b"]
    (tmp_path / "empty").mkdir()
    code, out, err = call("runs", "list", tmp_path / "empty")
    assert (code, out, "no runs" in err) == (0, "", True)
    assert call("runs", "list", tmp_path / "nowhere")[0] == 2
