"""The promises of every loop, for each kind of training: resume, stop, fail, take notes."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from support.continual import CONFIG as CONTINUAL, changed as continual_settings
from support.pretraining import CONFIG as PRETRAIN
from support.tokenizer_training import SMALL

from seit.config import build, to_mapping
from seit.continual_learning import continual
from seit.continual_learning.loop import Running
from seit.errors import SeitError
from seit.pretraining import pretrain
from seit.tokenizer_training import (
    TokenAdaptConfig,
    TokenizerConfig,
    loop as tokenizer_loop,
    train_tokenadapt,
    train_tokenizer,
)
from seit.tokenizer_training.loop import TokenizerLoop
from seit.tokenizer_training.tokenadapt import TokenAdaptLoop
from seit.training import Run, TrainConfig, journal, train
from seit.training.checkpoint import list_checkpoints
from seit.training.trainer import Trainer

STEPS, BATCH = 6, 8
NESTED = {
    "model": to_mapping(PRETRAIN.model),
    "data": {"batch_size": BATCH},
    "optim": {"lr": 1e-3, "lr_batch_size": 0},
    "schedule": {"steps": STEPS, "warmup_steps": 2},
    "augment": {"crop_size": 8},
    "ema": {"decay": 0.9},
    "run": {"device": "cpu", "eval_every": 4},
}
TOKENIZER = TokenizerConfig(
    **SMALL,
    size=32,
    scale=(1.0, 1.5),
    batch_size=BATCH,
    steps=STEPS,
    warmup_steps=2,
    adversarial=0.1,
    adversarial_start=3,
    discriminator_width=4,
    classes=0.1,
    hog=0.1,
    eval_images=8,
)
ADAPT = TokenAdaptConfig(
    dim=16, num_heads=2, steps=STEPS, batch_size=BATCH, warmup_steps=2, val_images=8, device="cpu"
)


def of_the_run(config, noting):
    return replace(config, run=replace(config.run, **noting))


def classify(store, out, noting, **call):
    train(of_the_run(build(TrainConfig, NESTED, origin="test"), noting), store, out=out, **call)


def mask(store, out, noting, **call):
    short = replace(
        PRETRAIN,
        data=replace(PRETRAIN.data, batch_size=BATCH),
        schedule=replace(PRETRAIN.schedule, steps=STEPS),
    )
    pretrain(of_the_run(short, noting), store, out=out, **call)


def learn_tasks(store, out, noting, **call):
    config = continual_settings(
        CONTINUAL,
        method="seq-ft",
        mask="seen",
        stream={"increment": 1},
        schedule={"steps": STEPS // 3},
    )
    continual(of_the_run(config, noting), store, out=out, **call)


def tokenizer(store, out, noting, **call):
    train_tokenizer(store.path.parent / "pictures", replace(TOKENIZER, **noting), out, **call)


def adapt(store, out, noting, **call):
    pictures = store.path.parent / "pictures"
    train_tokenadapt(store, pictures, replace(ADAPT, **noting), out.with_suffix(""), **call)


@dataclass(frozen=True)
class Case:
    """One kind of training.

    Attributes:
        call: trains it.
        loop: the class of its loop.
        weights: what a finished run leaves, in its folder.
        segments: how many parts of a run end with a checkpoint of their own.
    """

    call: Callable[..., None]
    loop: type[Any]
    weights: str
    segments: int = 0

    def run(self, store, out, *, every=2, loggers=(), **call):
        noting = {"checkpoint_every": every, "log_every": 1, "loggers": loggers}
        self.call(store, out, noting, **call)


CASES = {
    "train": Case(classify, Trainer, "model.safetensors"),
    "pretrain": Case(mask, Trainer, "model.safetensors"),
    "continual": Case(learn_tasks, Running, "learner.safetensors", segments=3),
    "tokenizer": Case(tokenizer, TokenizerLoop, "tokenizer.safetensors"),
    "token-adapt": Case(adapt, TokenAdaptLoop, "../undisturbed"),
}
MEASURED = ("samples_per_second", "data_wait_fraction")


@pytest.fixture(scope="module", autouse=True)
def quick_start():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_loop, "_START_BATCHES", 4)
        yield


@pytest.fixture(scope="module")
def store(pattern_store):
    return pattern_store


# Pretraining has the loop of training, and resumes in tests of its own.
SLOW = pytest.param("pretrain", marks=pytest.mark.slow)


@pytest.fixture(
    scope="module", params=[SLOW if name == "pretrain" else name for name in CASES], ids=str
)
def case(request):
    return CASES[request.param]


@pytest.fixture(scope="module")
def undisturbed(case, store, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "undisturbed.run"
    case.run(store, out, loggers=("tensorboard",))
    return out


@pytest.fixture
def out(tmp_path):
    return tmp_path / "undisturbed.run"


@pytest.fixture
def handled():
    """SIGTERM as a terminal's programs have it, whatever started the tests."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    signal.signal(signal.SIGTERM, before)


def lines(out, *, split=None):
    """The metrics without what is measured in time."""
    return [
        {key: value for key, value in line.items() if key not in MEASURED}
        for line in Run(out).metrics()
        if split in (None, line["split"])
    ]


def same(case, out, undisturbed):
    ours, theirs = load_file(out / case.weights), load_file(undisturbed / case.weights)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert lines(out) == lines(undisturbed)
    assert Run(out).info["status"] == "finished"


class KilledError(BaseException):
    """Stands for SIGKILL."""


def test_a_killed_run_resumes_bit_for_bit(case, store, undisturbed, out):
    for stop in (3, 5):

        def kill(step, *_, stop=stop):
            if step == stop:
                raise KilledError

        with pytest.raises(KilledError):
            case.run(store, out, resume=True, progress=kill)
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')
    case.run(store, out, resume=True)
    same(case, out, undisturbed)

    def refuse(*_):
        raise AssertionError("a finished run takes no step")

    case.run(store, out, resume=True, progress=refuse)


def test_sigterm_leaves_a_checkpoint_and_a_run_that_resumes(case, store, undisturbed, out, handled):
    def ask(step, *_):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        case.run(store, out, every=1000, progress=ask)
    assert lines(out, split="train")[-1]["step"] in (4, 5)  # the step under way, and a segment
    assert len(list_checkpoints(out / "checkpoints")) >= 1
    assert not (out / case.weights).exists()
    taken = []
    case.run(store, out, every=1000, resume=True, progress=lambda step, *_: taken.append(step))
    assert taken == [5, 6]
    same(case, out, undisturbed)


def failure(out):
    with safe_open(out / "failure.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["seit"]), file.get_tensor("inputs")


def test_a_loss_that_is_not_finite_names_its_inputs(case, store, undisturbed, out, monkeypatch):
    take = case.loop.take

    def broken(self, step, batch):
        return take(self, step, batch) * (torch.nan if step == 3 else 1)

    monkeypatch.setattr(case.loop, "take", broken)
    with pytest.raises(SeitError, match=r"the training loss became nan at step 4; lower .*lr"):
        case.run(store, out)
    found, inputs = failure(out)
    assert found["step"] == 3
    assert found["losses"][-1] == "nan"
    assert found["lr"] == lines(undisturbed, split="train")[3]["lr"]
    assert found["checkpoint"] == str(list_checkpoints(out / "checkpoints")[-1])
    assert len(found["keys"]) == len(inputs) == BATCH
    assert {Path(key).name for key in found["keys"]} <= {
        Path(key).name for key in store["train"].keys
    }
    monkeypatch.undo()
    monkeypatch.setattr(tokenizer_loop, "_START_BATCHES", 4)
    case.run(store, out, resume=True)
    same(case, out, undisturbed)


def test_a_last_update_that_ruins_the_weights_is_a_failure(case, store, out, monkeypatch):
    take = case.loop.take

    def ruin(self, step, batch):
        losses = take(self, step, batch)
        if step == STEPS - 1:
            with torch.no_grad():
                next(self.networks()[0].parameters()).view(-1)[0] = torch.nan
        return losses

    monkeypatch.setattr(case.loop, "take", ruin)
    with pytest.raises(SeitError, match=rf"weights .* no longer finite at step {STEPS}"):
        case.run(store, out)
    assert failure(out)[0]["step"] == STEPS - 1
    assert Run(out).info["status"] == "started"
    assert not (out / case.weights).exists()
    (last,) = list_checkpoints(out / "checkpoints")[-1:]
    assert f"{STEPS + case.segments:08d}" not in last.name


def test_lines_of_the_metrics_tell_rates_and_losses(case, undisturbed):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    noted = [line for line in Run(undisturbed).metrics() if line["split"] == "train"]
    assert len(noted) == STEPS
    rates = [line["lr"] for line in noted]
    assert all(rate >= 0 for rate in rates)
    assert max(rates) > 0
    assert all(line["samples_per_second"] > 0 and "loss" in line for line in noted)
    assert all(0 <= line["data_wait_fraction"] <= 1 for line in noted)
    events = EventAccumulator(str(undisturbed / "tensorboard")).Reload()
    shown = [event.value for event in events.Scalars("train/lr")]
    assert shown == pytest.approx(rates)


def test_loggers_hear_of_the_end(case, store, out, monkeypatch):
    ends = []

    class Recorder:
        def __init__(self, step):
            self.step = step

        def log(self, step, split, figures):
            assert step > self.step

        def finish(self, result):
            ends.append(result)

    monkeypatch.setattr(
        journal, "make_loggers", lambda names, folder, settings, step: (Recorder(step),)
    )

    def ask(step, *_):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            case.run(store, out, progress=ask)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ends == [None]
    case.run(store, out, resume=True)
    assert len(ends) == 2
    assert all(isinstance(value, int | float) for value in ends[1].values() if value is not None)
