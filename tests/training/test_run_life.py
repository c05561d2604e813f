"""The life of a run: how it starts, what stops it, how it ends, and where its weights came from."""

import fcntl
import json
import logging
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.continual import CONFIG as CONTINUAL
from support.pretraining import CONFIG as PRETRAIN, changed

from seit import files
from seit.analysis import run_quickstart
from seit.analysis.frontier.run import _enter as enter_frontier
from seit.analysis.runs.compare import compare_runs
from seit.cli import main, output
from seit.config import build, merge, to_mapping
from seit.continual_learning import continual
from seit.errors import DamagedError, SeitError, UsageError
from seit.exports.export import export_run
from seit.locks import locked_folder, take_lock
from seit.pretraining import pretrain
from seit.progress import Pace, human_rate, human_seconds
from seit.report.intervals import say_share
from seit.training import Run, TrainConfig, evaluate_run, predict, train
from seit.training.checkpoint import list_checkpoints
from seit.training.launch import has_checkpoint
from seit.training.seeds import train_seeds
from seit.training.tuning import TuneConfig, tune

BASE = {
    "model": to_mapping(PRETRAIN.model),
    "data": {"batch_size": 12},
    "optim": {"lr": 1e-2, "lr_batch_size": 0},
    "schedule": {"steps": 4, "warmup_steps": 1},
    "augment": {"crop_size": 8},
    "ema": {"decay": 0.0},
    "run": {"device": "cpu", "eval_every": 2, "log_every": 1, "loggers": []},
}
CONFIG = build(TrainConfig, BASE, origin="test")
FILES = {"model.safetensors", "predictions.safetensors", "report.html"}


def settings(kind=TrainConfig, **groups):
    return build(kind, merge(BASE, groups), origin="test")


def plain(config):
    """Its mapping as JSON holds it."""
    return json.loads(json.dumps(to_mapping(config)))


@pytest.fixture(scope="module")
def store(pattern_store):
    return pattern_store


@pytest.fixture(scope="module")
def finished(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "finished"
    train(CONFIG, store, out=out)
    return out


@pytest.fixture(scope="module")
def mtm(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "mtm"
    pretrain(changed(schedule={"steps": 2}), store, out=out)
    return out


def contents(folder, *, but=()):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in but
    }


class KilledError(BaseException):
    """Stands for SIGKILL: nothing that catches exceptions cleans up after it."""


@pytest.fixture
def kill(monkeypatch):
    """Die when a file of this name is about to be there, its temporary file left behind."""

    def arm(name):
        publish = files.publish

        def die(partial, path):
            if path.name == name:
                os.link(partial, path.with_name("kept"))
                raise KilledError
            publish(partial, path)

        monkeypatch.setattr(files, "publish", die)

    yield arm
    monkeypatch.undo()


# ----------------------------------------------------------------------------------------- starts


@pytest.mark.parametrize("name", ["run.json", "tokenizer.safetensors", "config.yaml"])
@pytest.mark.parametrize("resume", [True, False])
def test_a_start_that_was_killed_is_completed(store, tmp_path, kill, monkeypatch, name, resume):
    out = tmp_path / "run"
    kill(name)
    with pytest.raises(KilledError):
        Run.start(out, CONFIG, store, resume=True)
    (out / "kept").rename(out / f"{name}.partial")
    monkeypatch.undo()
    Run.start(out, CONFIG, store, resume=resume)
    assert Run.open(out).info["status"] == "started"
    assert Run.open(out).settings == CONFIG


def test_a_folder_of_something_else_is_not_taken_for_a_start(store, finished, tmp_path):
    own = tmp_path / "tokenizers"
    own.mkdir()
    (own / "tokenizer.safetensors").write_bytes((finished / "tokenizer.safetensors").read_bytes())
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "run.json").write_text("{}")
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    for folder in (own, tmp_path / "notes"):
        before = contents(folder)
        with pytest.raises(UsageError, match="something else"):
            train(CONFIG, store, out=folder, resume=True)
        assert contents(folder) == before


def test_a_sweep_that_was_killed_at_its_start_is_begun_again(store, tmp_path, kill, monkeypatch):
    out = tmp_path / "sweep"
    kill("seeds.json")
    with pytest.raises(KilledError):
        train_seeds(CONFIG, store, out, seeds=1)
    (out / "kept").rename(out / "seeds.json.partial")
    monkeypatch.undo()
    short = settings(schedule={"steps": 1})
    assert list(train_seeds(short, store, out, seeds=1).results) == [0]
    assert json.loads((out / "seeds.json").read_text())["status"] == "finished"


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"distill": {"teacher": "nowhere"}}, "no run at nowhere"),
        ({"distill": {"teacher": "MTM"}}, "is a pre-training run"),
        ({"optim": {"accumulate": 5}}, "equal parts"),
        ({"run": {"loggers": ["owl"]}}, "run.loggers names 'owl'"),
        ({"init_from": "nowhere"}, "no run at nowhere"),
    ],
)
def test_a_refused_run_leaves_nothing(store, mtm, tmp_path, groups, message):
    if groups.get("distill", {}).get("teacher") == "MTM":
        groups = {"distill": {"teacher": str(mtm)}}
    config = settings(**groups)
    with pytest.raises(UsageError, match=message):
        train(config, store, out=tmp_path / "a" / "run")
    with pytest.raises(UsageError, match=message):
        train_seeds(config, store, tmp_path / "b", seeds=2)
    assert not list(tmp_path.iterdir())


def test_a_refused_comparison_takes_other_settings(tmp_path):
    record = {"source": "abc", "size": 64, "train": plain(CONFIG)}
    other = {**record, "train": plain(settings(optim={"lr": 1e-3}))}
    out = tmp_path / "frontier"
    out.mkdir()
    enter_frontier(out, record)
    (out / "stores").mkdir()
    enter_frontier(out, other)
    assert json.loads((out / "frontier.json").read_text())["settings"]["train"] == other["train"]
    with pytest.raises(UsageError, match="size was 64 and is 32"):
        enter_frontier(out, {**other, "size": 32})
    (out / "runs" / "pixels" / "seed-0").mkdir(parents=True)
    (out / "runs" / "pixels" / "seed-0" / "config.yaml").touch()
    with pytest.raises(UsageError, match="other settings"):
        enter_frontier(out, record)


# ------------------------------------------------------------------------------------------- ends


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_a_finished_run_lacks_is_made_again(
    store, finished, tmp_path, kill, monkeypatch, name
):
    """Killed as a file was to be written, or the file is gone later."""
    out = tmp_path / "run"
    kill(name)
    with pytest.raises(KilledError):
        train(CONFIG, store, out=out)
    (out / "kept").unlink()
    monkeypatch.undo()
    assert Run.open(out).info["status"] == "started"
    first = train(CONFIG, store, out=out, resume=True)
    info = Run.open(out).info
    assert info["status"] == "finished"
    assert first.samples_per_second > 0
    (out / name).unlink()
    assert train(CONFIG, store, out=out, resume=True) == first
    weights, expected = (load_file(one / "model.safetensors") for one in (out, finished))
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    assert {path.name for path in out.iterdir()} >= FILES
    assert Run.open(out).info["result"] == info["result"]


def test_a_finished_run_without_checkpoints_is_left_alone(store, finished, tmp_path, caplog):
    out = tmp_path / "run"
    train(CONFIG, store, out=out)
    for path in list_checkpoints(out / "checkpoints"):
        path.unlink()
    (out / "report.html").unlink()
    before = contents(out)
    train(CONFIG, store, out=out, resume=True)
    assert "has finished but has no report.html, and no checkpoint" in caplog.text
    assert contents(out) == before


def test_a_continual_run_gets_its_report(store, tmp_path):
    config = replace(
        CONTINUAL,
        method="ncm",
        stream=replace(CONTINUAL.stream, increment=1),
    )
    out = tmp_path / "run"
    first = continual(config, store, out=out)
    before = contents(out)
    (out / "report.html").unlink()
    (out / "learner.safetensors").unlink()
    again = continual(config, store, out=out, resume=True)
    assert (again.network, again.metrics, again.seconds) == (
        first.network,
        first.metrics,
        first.seconds,
    )
    same = contents(out, but=("report.html",))
    assert same == {name: data for name, data in before.items() if name != "report.html"}
    assert (out / "report.html").is_file()


# ------------------------------------------------------------------------------------------ locks


def test_a_second_process_is_refused_and_names_the_first(store, tmp_path):
    out = tmp_path / "run"
    told = []

    def second(done, *_):
        if done in (1, 3):
            with pytest.raises(SeitError) as refused:
                train(CONFIG, store, out=out, resume=True)
            told.append(str(refused.value))

    train(CONFIG, store, out=out, progress=second)
    assert len(told) == 2
    assert all(
        f"another process is working in {out} (process {os.getpid()} " in one for one in told
    )
    assert not (out / ".lock").exists()
    steps = [entry["step"] for entry in Run.open(out).metrics() if entry["split"] == "train"]
    assert steps == [1, 2, 3, 4]


def test_every_kind_of_folder_is_held(store, tmp_path):
    calls = {
        "sweep": lambda out: train_seeds(CONFIG, store, out, seeds=2),
        "tasks": lambda out: continual(CONTINUAL, store, out=out),
        "features": lambda out: pretrain(PRETRAIN, store, out=out),
        "story": lambda out: run_quickstart(out, data=str(store.path.parent / "pictures")),
    }
    for name, call in calls.items():
        with locked_folder(tmp_path / name), pytest.raises(SeitError, match="another process is"):
            call(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_lock_goes_with_its_holder_and_leaves_no_folder(tmp_path):
    folder = tmp_path / "a" / "b"
    with locked_folder(folder):
        assert [path.name for path in folder.iterdir()] == [".lock"]
    assert not (tmp_path / "a").exists()
    folder.mkdir(parents=True)
    (folder / ".lock").write_text("process 1 on elsewhere")  # of a process that was killed
    with locked_folder(folder), pytest.raises(SeitError, match=f"process {os.getpid()} on"):
        take_lock(folder / ".lock", busy="busy")
    (folder / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(UsageError), locked_folder(folder):
        pass
    assert not (tmp_path / "precious").exists()


def test_without_locks_a_run_is_not_held(tmp_path, monkeypatch, caplog):
    def none(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    with locked_folder(tmp_path / "run"):
        pass
    assert "a second process there would not be noticed" in caplog.text


# ----------------------------------------------------------------------------------- finite results


def ruin(module):
    with torch.no_grad():
        next(module.parameters()).view(-1)[0] = torch.nan


def test_a_last_update_that_ruins_the_average_is_a_failure(store, tmp_path, monkeypatch):
    from seit.training.step import Stepper

    step = Stepper.step

    def last(self, number, batch, **given):
        losses = step(self, number, batch, **given)
        if number == 3:
            ruin(self.average.module)
        return losses

    monkeypatch.setattr(Stepper, "step", last)
    out = tmp_path / "run"
    with pytest.raises(SeitError, match=r"weights .* are no longer finite at step 4"):
        train(settings(ema={"decay": 0.9}), store, out=out)
    assert Run.open(out).info["status"] == "started"
    assert not (out / "model.safetensors").exists()
    assert [path.name for path in list_checkpoints(out / "checkpoints")] == [
        "step-00000002.safetensors"
    ]
    with safe_open(out / "failure.safetensors", framework="pt") as file:
        told = json.loads(file.metadata()["seit"])
    assert told["step"] == 3
    assert len(told["keys"]) == 12
    assert "no longer finite" in told["found"]


def test_outputs_that_are_not_finite_are_a_failure(store, tmp_path, monkeypatch):
    from seit.training import classify

    evaluate = classify.evaluate
    monkeypatch.setattr(
        classify, "evaluate", lambda *a, **b: replace(evaluate(*a, **b), loss=float("inf"))
    )
    with pytest.raises(SeitError, match="the evaluated loss became inf at step 2"):
        train(CONFIG, store, out=tmp_path / "run")


def test_a_loss_far_above_that_of_guessing_is_warned_of(store, tmp_path, monkeypatch, caplog):
    from seit.training import classify

    evaluate = classify.evaluate
    monkeypatch.setattr(
        classify, "evaluate", lambda *a, **b: replace(evaluate(*a, **b), loss=7.7e10)
    )
    train(settings(schedule={"steps": 1}), store, out=tmp_path / "run")
    expected = "the validation loss is 7.7e+10, and that of guessing 1.1: the training diverged"
    assert expected in caplog.text
    assert expected in Run.open(tmp_path / "run").info["warnings"][0]
    assert expected in (tmp_path / "run" / "report.html").read_text()


def test_weights_that_are_not_finite_are_refused_by_name(store, finished, tmp_path):
    out = tmp_path / "run"
    train(CONFIG, store, out=out)
    weights = load_file(out / "model.safetensors")
    weights["head.bias"][0] = torch.inf
    save_file(weights, out / "model.safetensors")
    picture = next((store.path.parent / "pictures" / "val").rglob("*.png"))
    taught = settings(distill={"teacher": str(out)})
    for use in (
        lambda: evaluate_run(out, store, device="cpu"),
        lambda: predict(out, [picture], device="cpu"),
        lambda: export_run(out, tmp_path / "export", formats=("safetensors",)),
        lambda: train(CONFIG, store, out=tmp_path / "warm", init_from=out),
        lambda: train(taught, store, out=tmp_path / "taught"),
    ):
        with pytest.raises(DamagedError, match=r"weights of .*run are not finite \(head.bias\)"):
            use()
    assert not (tmp_path / "export").exists()
    assert not (tmp_path / "warm").exists()


# ------------------------------------------------------------------------ where weights come from


def test_where_the_weights_came_from_is_recorded_and_compared(store, finished, tmp_path):
    out = tmp_path / "warm"
    train(CONFIG, store, out=out, init_from=finished)
    run = Run.open(out)
    assert run.settings.init_from == str(finished)
    told = run.info["weights_from"]
    assert told == {
        "run": str(finished),
        "fingerprint": files.sha256_of(finished / "model.safetensors"),
        "command": "train",
        "objective": "classify",
        "model": "vit_tiny_patch16_224",
        "steps": 4,
        "store": store.card.seal,
        "labels": sorted(store.classes),
    }
    assert run.info["tokenizer"]["fingerprint"] == store.card.tokenizer.fingerprint
    page = (out / "report.html").read_text()
    assert "Where the weights come from" in page
    assert told["fingerprint"][:12] in page
    found = compare_runs([finished, out])
    assert found.settings["init_from"] == (None, str(finished))
    assert f"sha256 {told['fingerprint'][:12]}" in found.settings["weights_from"][1]


def test_a_teacher_is_recorded_and_has_to_stay_the_same(store, finished, tmp_path):
    teacher = tmp_path / "teacher"
    train(settings(run={"seed": 3}), store, out=teacher)
    config = settings(distill={"teacher": str(teacher)})
    out = tmp_path / "run"
    with pytest.raises(ZeroDivisionError):
        train(config, store, out=out, progress=lambda done, *_: 1 / (done - 3))
    assert Run.open(out).info["teacher"]["steps"] == 4
    (teacher / "model.safetensors").write_bytes((finished / "model.safetensors").read_bytes())
    with pytest.raises(UsageError, match="holds other weights than when"):
        train(config, store, out=out, resume=True)


def test_a_resumed_run_does_not_read_what_it_started_from(store, finished, tmp_path):
    start, out, whole = tmp_path / "start", tmp_path / "run", tmp_path / "whole"
    train(settings(run={"seed": 1}), store, out=start)
    train(CONFIG, store, out=whole, init_from=start)
    with pytest.raises(ZeroDivisionError):
        train(CONFIG, store, out=out, init_from=start, progress=lambda done, *_: 1 / (done - 3))
    for other in (finished, None):
        with pytest.raises(UsageError, match=r"init_from was .*start' and is"):
            train(CONFIG, store, out=out, init_from=other, resume=True)
    start.rename(tmp_path / "moved")
    assert has_checkpoint(out, resume=True)
    train(CONFIG, store, out=out, init_from=start, resume=True)
    weights, expected = (load_file(one / "model.safetensors") for one in (out, whole))
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    train(CONFIG, store, out=out, init_from=tmp_path / "moved", resume=True)  # the same weights


def test_a_tuned_run_needs_the_backbone_that_it_began_with(store, mtm, tmp_path):
    start, out = tmp_path / "start", tmp_path / "run"
    pretrain(changed(schedule={"steps": 1}), store, out=start)
    config = settings(TuneConfig, tuning={"method": "bitfit"})
    with pytest.raises(UsageError, match="--init-from is missing"):
        tune(config, store, out=out)
    with pytest.raises(ZeroDivisionError):
        tune(config, store, out=out, init_from=start, progress=lambda done, *_: 1 / (done - 3))
    (start / "model.safetensors").write_bytes((mtm / "model.safetensors").read_bytes())
    with pytest.raises(UsageError, match="holds other weights than when"):
        tune(config, store, out=out, init_from=start, resume=True)


def test_older_runs_resume_with_and_without_what_they_started_from(store, finished, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(ZeroDivisionError):
        train(CONFIG, store, out=out, init_from=finished, progress=lambda done, *_: 1 / (done - 3))
    config = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text(config[: config.index("init_from")])
    info = Run.open(out).info
    kept = ("status", "identity", "revision")
    Run.open(out).write_info({name: info[name] for name in kept})
    assert train(CONFIG, store, out=out, init_from=finished, resume=True).steps == 4


def test_a_random_frozen_backbone_is_warned_of(store, mtm, tmp_path, caplog):
    stream = replace(CONTINUAL.stream, increment=1)
    config = replace(CONTINUAL, method="ncm", stream=stream)
    result = continual(config, store, out=tmp_path / "run")
    assert "the backbone has random weights" in caplog.text
    assert "--init-from" in result.warnings[0]
    assert "the backbone has random weights" in (tmp_path / "run" / "report.html").read_text()
    again = continual(config, store, out=tmp_path / "run", resume=True)
    assert again.warnings == result.warnings
    warm = replace(config, model=PRETRAIN.model)
    assert continual(warm, store, out=tmp_path / "warm", init_from=mtm).warnings == ()
    assert Run.open(tmp_path / "warm").info["weights_from"]["objective"] == "mtm"
    whole = replace(CONTINUAL.tuning, method="full")
    full = replace(CONTINUAL, method="seq-ft", stream=stream, tuning=whole)
    full = replace(full, schedule=replace(full.schedule, steps=1))
    assert continual(full, store, out=tmp_path / "full").warnings == ()


# ------------------------------------------------------------------------------------- what is said


def test_a_run_says_what_it_does_without_a_terminal(store, tmp_path, capsys):
    main(
        [
            *("train", str(store.folder), "--out", str(tmp_path / "run"), "--steps", "4"),
            *("--batch-size", "12", "--device", "cpu", "--run.eval_every", "2", "--json"),
            *("--model.embed_dim=16", "--model.depth=1", "--model.num_heads=2"),
            *("--model.stem", "2/2/0"),
        ]
    )
    out, err = capsys.readouterr()
    assert json.loads(out)["val_samples"] == 15
    lines = err.splitlines()
    assert lines[0] == "reading the tokens of train, 36 samples"
    assert any(line.startswith("training vit_tiny_patch16_224, ") for line in lines)
    (first,) = [line for line in lines if line.startswith("step 2 of 4, epoch 0.667: ")]
    for part in ("validation loss ", "samples/s", " left"):
        assert part in first
    assert re.search(r"top-1 \d+\.\d\d%", first)
    assert not logging.getLogger("seit").handlers


def test_human_output_leaves_out_what_means_nothing(finished, store, tmp_path, capsys):
    config = str(finished / "config.yaml")
    arguments = ("--config", config, "--resume", "--out", str(finished))
    main(["train", str(store.folder), *arguments])
    out = capsys.readouterr().out
    assert "top-5" not in out
    assert "at 95% confidence, of 15 samples)" in out
    assert re.search(r"^top-1 +\d+\.\d\d% ", out, re.MULTILINE)
    assert "top-5" not in (finished / "report.html").read_text().split("Settings")[0]


def test_shares_of_few_samples_are_counts():
    assert say_share(1.0, 1) == ("1 of 1", "too few samples for a share")
    assert say_share(0.25, 100) == ("25.0%", "17.5% to 34.3% at 95% confidence, of 100 samples")
    assert say_share(0.25, None) == ("25.0%", "")


def test_pace_is_that_of_this_call():
    now = [0.0]
    pace = Pace(lambda: now[0])
    pace.update(500, 1000)  # what an earlier call did
    assert pace.rate is None
    for done in range(501, 511):
        now[0] += 40.0  # slower than the window
        pace.update(done, 1000)
    assert pace.rate == pytest.approx(1 / 40)
    assert pace.remaining == pytest.approx(490 * 40)
    for done in range(511, 711):
        now[0] += 1.0
        pace.update(done, 1000)
    assert pace.rate == pytest.approx(1, rel=0.02)
    pace.update(1, 50)  # another job
    assert pace.rate is None


def test_rates_below_one_keep_their_digits():
    assert [human_rate(one, "steps") for one in (0.0251, 0.996, 3.44, 9.97, 1240.4)] == [
        "0.025 steps/s",
        "1.0 steps/s",
        "3.4 steps/s",
        "10 steps/s",
        "1,240 steps/s",
    ]
    assert human_seconds(3_725) == "1 h 02 min"


def test_lines_come_now_and_then(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: now[0])
    with output.progress_bar("tokenizing", "files") as bar:
        for done in range(1, 101):
            now[0] += 2.0
            bar(done, 100, "1 skipped")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "tokenizing: 5 of 100, 0.5 files/s, 3 min 10 s left, 1 skipped"
    assert len(lines) == 20


def test_log_lines_stay_above_the_bar_of_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(output.sys.stderr, "isatty", lambda: True, raising=False)
    with output.spoken_log(), output.progress_bar("training", "steps") as bar:
        bar(1, 10, "loss [1]")
        logging.getLogger("seit.training.loop").info("step 1 of 10")
        logging.getLogger("seit.training.loop").warning("mind\nthis")
    err = capsys.readouterr().err
    assert "step 1 of 10\n" in err
    assert "warning: mind this\n" in err


# ---------------------------------------------------------------------------- tokenizer trainings


def test_a_refused_tokenizer_training_leaves_nothing(tmp_path, monkeypatch):
    from seit.tokenizer_training import TokenizerConfig, train as of_tokenizers, train_tokenizer

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(2):
        Image.fromarray(np.full((32, 32, 3), 90 * number, np.uint8)).save(
            pictures / f"{number}.png"
        )

    small = TokenizerConfig(size=32, crop=32, scale=(1.0, 1.5), device="cpu")

    def refuse(*_):
        raise UsageError("there are no such crops")

    monkeypatch.setattr(of_tokenizers, "make_domain", refuse)
    with pytest.raises(UsageError, match="no such crops"):
        train_tokenizer(pictures, small, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    held = tmp_path / "held"
    with locked_folder(held), pytest.raises(SeitError, match="another process is working"):
        train_tokenizer(pictures, small, held)
    assert not held.exists()


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_a_run_without_its_tokenizer_advises_to_restore_it(tiny_run, tmp_path, fault):
    run = Run.open(shutil.copytree(tiny_run, tmp_path / "run"))
    (run.path / "tokenizer.safetensors").unlink()
    if fault == "damaged":
        (run.path / "tokenizer.safetensors").write_bytes(b"cut")
    with pytest.raises(SeitError, match=r"restore it from a copy of the run$"):
        run.load_tokenizer()
