"""Settings of runs that are refused: out of range, or without effect."""

import math

import pytest

from seit.continual_learning import ContinualConfig
from seit.errors import UsageError
from seit.pretraining import PretrainConfig
from seit.training import SpeechTuneConfig, TrainConfig
from seit.training.config import DataConfig


@pytest.mark.parametrize("config", [TrainConfig, PretrainConfig, ContinualConfig, SpeechTuneConfig])
@pytest.mark.parametrize("fraction", [10.0, 1.5, 0.0, -0.1, math.nan, math.inf])
def test_a_fraction_is_above_0_and_at_most_1(config, fraction):
    message = rf"data\.fraction is {fraction}; it must be above 0 and at most 1, such as 0\.1"
    with pytest.raises(UsageError, match=message):
        config(data=DataConfig(fraction=fraction))


def test_a_refused_setting_leaves_nothing(pattern_store, tmp_path, call):
    run = tmp_path / "run"
    code, _, errors = call("train", pattern_store.folder, "--out", run, "--data.fraction", 10)
    assert code == 2
    assert "data.fraction is 10.0; it must be above 0 and at most 1" in errors
    assert not run.exists()
