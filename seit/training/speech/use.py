"""Evaluation and prediction by a run that tuned a speech model, which is named again.

Nothing in a run's folder names what is read: its adapter belongs to one speech model, recognized by
a fingerprint of all its weights.

Legend: B batch, N classes.
"""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from seit.classes import match_classes
from seit.devices import choose_device
from seit.errors import UnreadableError, UsageError
from seit.ingest import Instance, read_bytes
from seit.modality import Modality
from seit.models import SpeechClassifier, load_adapter
from seit.stream import SoundLoader, cut_sounds, padded
from seit.training.evaluate import (
    RunEvaluation,
    chosen_split,
    evaluate,
    refuse_unknown,
    unknown_classes,
)
from seit.training.precision import make_autocast
from seit.training.prediction import Predictor, Windows
from seit.training.run import Run
from seit.training.speech.config import SpeechTuneConfig
from seit.training.speech.data import open_sounds
from seit.training.speech.tune import EVAL_CLIPS, make_classifier
from seit.training.tuning.start import ADAPTER_NAME


def load_tuned_speech(
    run: Run, backbone: str | Path | None, *, device: torch.device, download: bool = False
) -> tuple[SpeechTuneConfig, SpeechClassifier]:
    """Load the speech model of a run with what was trained on it; return its settings, too.

    Args:
        run: a finished run of `tune_speech`.
        backbone: folder of the speech model, or its name on the hub.
        device: device of the network.
        download: whether a name on the hub may be downloaded.

    Raises:
        UsageError: the run has not finished, or was tuned on another speech model.
        DamagedError: its files are corrupt.
    """
    settings = run.own_settings
    assert isinstance(settings, SpeechTuneConfig), "the kind of run"
    path = run.finished_file(ADAPTER_NAME)
    if backbone is None:
        raise UsageError(
            f"the run {run.path} tuned a speech model whose weights it does not hold; name its "
            "folder by --backbone hf:PATH"
        )
    model = make_classifier(settings, backbone, len(run.classes), download=download)
    load_adapter(path, model)
    return settings, model.to(device).eval()


def evaluate_speech(
    run_path: str | Path,
    source: str | Path,
    *,
    backbone: str | Path | None,
    split: str | None = None,
    unknown: Literal["error", "skip"] = "error",
    spelling: Literal["exact", "loose"] = "exact",
    device: str = "auto",
    download: bool = False,
) -> tuple[RunEvaluation, list[str]]:
    """Evaluate a run on one split of a corpus of sounds; return the keys of its clips, too.

    Arguments and errors are those of :func:`seit.training.evaluate_run` and of `load_tuned_speech`.
    """
    run, target = Run.open(run_path), choose_device(device)
    settings, model = load_tuned_speech(run, backbone, device=target, download=download)
    data = open_sounds(source, seconds=settings.speech.seconds)
    chosen = data[chosen_split(data, settings.data.val_split) if split is None else split]
    match = match_classes(data.classes, run.classes, loose=spelling == "loose")
    left_out = unknown_classes(data, chosen.name, match)
    refuse_unknown(run, data, chosen.name, match, left_out, skips=unknown == "skip")
    loader = SoundLoader(chosen.clips, batch_size=EVAL_CLIPS, shuffle=False, seed=0, device=target)
    lookup = torch.from_numpy(np.append(match.numbers, -1)).to(target)
    found = evaluate(
        model,
        ((batch.tokens, lookup[batch.labels]) for batch in loader.epoch(0)),
        num_classes=len(run.classes),
        device=target,
        autocast=make_autocast(settings, target),
    )
    result = RunEvaluation(
        **{one.name: getattr(found, one.name) for one in fields(found)},
        split=chosen.name,
        classes=run.classes,
        unknown_classes=left_out,
        missing_classes=match.missing,
        unknown_samples=sum(left_out.values()),
    )
    return result, chosen.keys


class SpeechPredictor(Predictor):
    """Classifier of files by a run that tuned a speech model; see `Predictor`.

    Args:
        run_path: the run's folder.
        backbone: folder of the speech model, or its name on the hub.
        top: number of classes to return.
        device: device of the network.
        download: whether a name on the hub may be downloaded.

    Raises:
        UsageError: see `load_tuned_speech`.
    """

    modality: Modality = "audio"

    def __init__(
        self,
        run_path: str | Path,
        *,
        backbone: str | Path | None,
        top: int = 5,
        device: str = "auto",
        download: bool = False,
    ) -> None:
        run, self._device = Run.open(run_path), choose_device(device)
        self._config, self._model = load_tuned_speech(
            run, backbone, device=self._device, download=download
        )
        self._seconds = self._config.speech.seconds
        self._classes, self._least = run.classes, 0.0
        self.top = min(top, len(run.classes))

    @override
    def _read(self, file: str) -> tuple[str, Windows | UnreadableError]:
        try:
            data = read_bytes(Instance(key=file, split="", label=-1, location=file))
            return file, list(cut_sounds(data, seconds=self._seconds))
        except UnreadableError as error:
            return file, error

    @override
    def _probabilities(self, inputs: Sequence[Any]) -> Tensor:
        shares = []
        with torch.inference_mode(), make_autocast(self._config, self._device):
            for start in range(0, len(inputs), EVAL_CLIPS):
                waves = padded(inputs[start : start + EVAL_CLIPS]).to(self._device)
                logits: Tensor = self._model(waves)
                shares.append(logits.float().softmax(1).double().cpu())
        return torch.cat(shares)
