"""Fit of units of a speech model, on a sample of a corpus of sounds."""

from dataclasses import replace
from pathlib import Path

import torch

from seit.errors import UsageError
from seit.ingest.config import TokenizeConfig
from seit.ingest.fit import make_reader, measure, sample_inputs
from seit.ingest.sources import list_corpus
from seit.tokenizers import (
    MAX_WINDOW_SECONDS,
    SAMPLE_RATE,
    AnyQuality,
    AudioInputs,
    HiddenLayer,
    UnitTokenizer,
    backbone_name,
    load_speech,
)

_FIT_BYTES = 256 << 20
_MOST_WINDOWS = 4096
_LEAST_SECONDS = 0.1


def fit_units(
    source: str | Path,
    backbone: str | Path,
    *,
    layer: int,
    codes: int = 500,
    seconds: float = 5.0,
    seed: int = 0,
    device: torch.device | str = "cpu",
    download: bool = False,
) -> tuple[UnitTokenizer, AnyQuality, tuple[str, ...]]:
    """Fit units on a corpus of sounds; return them with their quality there and warnings.

    The sample holds at most 4,096 windows and 256 MB, evenly spread over the training split.

    Args:
        source: a corpus, as for `seit tokenize`.
        backbone: folder of the speech model, or its name on the hub.
        layer: number of the layer, as in `output_hidden_states` of transformers.
        codes: codes K, of which one is for frames after the end of a clip.
        seconds: duration of a window; longer clips are cut into several.
        seed: seed of the choice of frames and of the clustering.
        device: device of the speech model.
        download: whether a name on the hub may be downloaded.

    Raises:
        UsageError: invalid input.
        SeitError: too few sounds are readable.
    """
    if not _LEAST_SECONDS <= seconds <= MAX_WINDOW_SECONDS:
        raise UsageError(
            f"seconds is {seconds:g}; expected {_LEAST_SECONDS} to {MAX_WINDOW_SECONDS:g}"
        )
    config = TokenizeConfig(codes=codes, seed=seed)
    inputs = AudioInputs(SAMPLE_RATE, round(seconds * SAMPLE_RATE))
    corpus = list_corpus(source, val_fraction=config.val_fraction, modality="audio")
    reader = HiddenLayer(load_speech(backbone, download=download), layer).to(device)
    count = min(_MOST_WINDOWS, _FIT_BYTES // (4 * inputs.window))
    with make_reader(replace(config, inputs=inputs)) as files:
        windows = sample_inputs(corpus, files, count=count, split="train")
        with torch.inference_mode():
            fitted = UnitTokenizer.fit(
                windows.to(device),
                reader,
                backbone=backbone_name(backbone),
                num_codes=codes,
                seed=seed,
            )
        return fitted, measure(fitted, corpus, files), corpus.warnings
