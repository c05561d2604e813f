"""Settings of runs that are refused: out of range, or without effect."""

import math

import pytest

from seit.api import plan_run
from seit.continual_learning import ContinualConfig
from seit.errors import UsageError
from seit.pretraining import PretrainConfig
from seit.training import SpeechTuneConfig, TrainConfig
from seit.training.config import DataConfig, OptimConfig, ScheduleConfig


@pytest.mark.parametrize("config", [TrainConfig, PretrainConfig, ContinualConfig, SpeechTuneConfig])
@pytest.mark.parametrize("fraction", [10.0, 1.5, 0.0, -0.1, math.nan, math.inf])
def test_a_fraction_is_above_0_and_at_most_1(config, fraction):
    message = rf"data\.fraction is {fraction}; it must be above 0 and at most 1, such as 0\.1"
    with pytest.raises(UsageError, match=message):
        config(data=DataConfig(fraction=fraction))


@pytest.mark.parametrize("config", [TrainConfig, PretrainConfig, ContinualConfig])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize(
    ("group", "name"),
    [
        (OptimConfig, "weight_decay"),
        (OptimConfig, "eps"),
        (ScheduleConfig, "warmup_epochs"),
        (ScheduleConfig, "warmup_lr"),
        (ScheduleConfig, "min_lr"),
    ],
)
def test_rates_are_finite_and_not_negative(config, group, name, value):
    field = {OptimConfig: "optim", ScheduleConfig: "schedule"}[group]
    message = rf"{field}\.{name} is {value}; it must be at least 0 and finite"
    with pytest.raises(UsageError, match=message):
        config(**{field: group(**{name: value})})


@pytest.mark.parametrize("betas", [(1.0, 0.9), (0.9, 1.5), (-0.1, 0.9), (0.9, math.nan)])
def test_betas_are_below_1(betas):
    with pytest.raises(UsageError, match=r"optim\.betas is \(.*; it must be two numbers from 0"):
        TrainConfig(optim=OptimConfig(betas=betas))
    TrainConfig(optim=OptimConfig(betas=(0.0, 0.0)))


def test_numbers_of_samples_and_blocks_are_not_negative():
    with pytest.raises(UsageError, match=r"optim\.lr_batch_size is -512; it must be at least 0"):
        TrainConfig(optim=OptimConfig(lr_batch_size=-512))
    with pytest.raises(UsageError, match=r"data\.window_blocks is 0; it must be at least 1"):
        TrainConfig(data=DataConfig(window_blocks=0))


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--optim.betas", "1.5,0.9"),
        ("--optim.eps", "-1"),
        ("--optim.weight_decay", "nan"),
        ("--optim.lr_batch_size", "-512"),
        ("--schedule.min_lr", "nan"),
    ],
)
def test_the_command_refuses_in_one_line(pattern_store, tmp_path, call, flag, value):
    run = tmp_path / "run"
    code, out, errors = call("train", pattern_store.folder, "--out", run, f"{flag}={value}")
    assert (code, out) == (2, "")
    lines = errors.splitlines()
    assert [line for line in lines if not line.startswith("warning: ")] == lines[-1:]
    assert lines[-1].startswith(f"error: {flag.removeprefix('--')} is ")
    assert not run.exists()


def test_a_refused_setting_leaves_nothing(pattern_store, tmp_path, call):
    run = tmp_path / "run"
    code, _, errors = call("train", pattern_store.folder, "--out", run, "--data.fraction", 10)
    assert code == 2
    assert "data.fraction is 10.0; it must be above 0 and at most 1" in errors
    assert not run.exists()


@pytest.mark.parametrize("verb", ["train", "tune", "continual"])
def test_the_backbone_of_a_run_may_be_named_again(verb, learned, pattern_store):
    def planned(**changes):
        return plan_run(verb, pattern_store, init_from=learned, **changes)

    settings = planned()
    assert (settings.model.embed_dim, settings.augment.crop_size) == (32, 8)
    assert planned(model="vit_tiny_patch16_224") == settings
    other = planned(model="resnet10t")
    assert (other.model.embed_dim, other.augment.crop_size) == (None, 8)
