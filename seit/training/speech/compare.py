"""Comparison of tuning methods on one speech model, with several seeds each."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import nn

from seit.models import Method
from seit.progress import Progress
from seit.training.speech.config import SpeechTuneConfig
from seit.training.speech.data import SoundData
from seit.training.speech.tune import SpeechTuneResult, speech_classifier, tune_speech
from seit.training.tuning.compare import Learner, MethodsResult, tune_methods


def tune_speech_methods(
    config: SpeechTuneConfig,
    data: SoundData,
    *,
    out: str | Path,
    methods: Sequence[Method],
    seeds: int = 1,
    skip_unfit: bool = False,
    resume: bool = False,
    download: bool = False,
    progress: Progress | None = None,
) -> MethodsResult:
    """Tune a speech model with several methods, one after the other, and compare them.

    Arguments and errors are those of :func:`seit.training.tune_methods` and of `tune_speech`.
    """
    return tune_methods(
        config,
        data,
        out=out,
        methods=methods,
        seeds=seeds,
        skip_unfit=skip_unfit,
        resume=resume,
        progress=progress,
        learner=Learner(partial(_learn, download=download), partial(_build, download=download)),
    )


def _learn(
    config: SpeechTuneConfig,
    data: SoundData,
    *,
    out: Path,
    resume: bool,
    init_from: str | Path | None,
    progress: Progress | None,
    download: bool,
) -> SpeechTuneResult:
    assert init_from is None, "a speech model starts from its own weights"
    return tune_speech(config, data, out=out, download=download, resume=resume, progress=progress)


def _build(config: SpeechTuneConfig, data: SoundData, *, download: bool) -> nn.Module:
    return speech_classifier(config, num_classes=len(data.classes), download=download)
