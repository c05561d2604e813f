"""Prediction of the classes of raw image or audio files with a finished run.

Legend: B batch, N classes.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import override

from seit.augment import PixelAugment, TokenAugment
from seit.devices import choose_device
from seit.errors import UnreadableError, UsageError
from seit.ingest import (
    EXTENSIONS,
    NOUNS,
    Instance,
    Remarks,
    decode_audio,
    decode_image,
    read_bytes,
    walk,
)
from seit.lookahead import map_ahead
from seit.modality import Modality
from seit.outcomes import Outcome
from seit.shards import is_url
from seit.tokenizers import ImageInputs, Inputs, Tokenizer, with_backbone
from seit.training.config import LoopConfig
from seit.training.feeds import EVAL_BATCH
from seit.training.label_sets import THRESHOLD
from seit.training.networks import load_classifier
from seit.training.precision import make_autocast
from seit.training.run import Run

_LOG = logging.getLogger(__name__)
Windows = list[npt.NDArray[Any]]
"""Parts of a file, as the network takes them."""


@dataclass(frozen=True)
class Prediction(Outcome):
    """Predicted classes of one file.

    Attributes:
        file: its path.
        classes: the most probable classes, best first, with their probabilities (0–1). A run that
            learned several labels per sample names only those from a threshold on, maybe none.
        error: why the file cannot be read; None if it can.
    """

    file: str
    classes: tuple[tuple[str, float], ...]
    error: str | None = None

    @override
    def record(self) -> dict[str, Any]:
        named = [{"class": name, "probability": share} for name, share in self.classes]
        error = {} if self.error is None else {"error": self.error}
        return {"file": self.file, "classes": named, **error}


class Predictor:
    """Classifier of files by a finished run, in batches and lazily.

    Args:
        run_path: the run's folder.
        top: number of classes to return.
        device: device of the network.
        threshold: least probability of a label, 0–1, for a run that learned several per sample;
            None for 0.5.
        backbone: folder of the speech model of a run on units, or its name on the hub.
        download: whether a name on the hub may be downloaded.

    Raises:
        UsageError: the run has not finished, is not a classifier, learned one label per sample and
            ``threshold`` is given, or takes units and the speech model is missing or another.
    """

    def __init__(
        self,
        run_path: str | Path,
        *,
        top: int = 5,
        device: str = "auto",
        threshold: float | None = None,
        backbone: str | Path | None = None,
        download: bool = False,
    ) -> None:
        run = Run.open(run_path)
        self._has_sets = run.has_label_sets
        self._least = checked_threshold(run, threshold)
        self._config, self._classes = run.config, run.classes
        self._device = choose_device(device)
        tokenizer = run.load_tokenizer()
        tokenizer = with_backbone(tokenizer, backbone, download=download)
        self._tokenizer = tokenizer.to(self._device)
        augment = evaluation_augment(self._config, self._tokenizer, self._device)
        model, self._augment = load_classifier(run, augment, self._tokenizer, self._device)
        self._model = model.eval()
        self.top = min(top, len(run.classes))

    @property
    def modality(self) -> Modality:
        """Modality of the files: image or audio."""
        return self._tokenizer.inputs.modality

    def __call__(self, files: Iterable[str | Path]) -> Iterator[Prediction]:
        """Yield the prediction of each file, in order; memory is that of a batch.

        The probabilities of an audio file are averaged over its windows. A file that cannot be read
        has an ``error`` instead of classes.
        """
        names: list[str] = []
        read: list[Windows | UnreadableError] = []
        size = 0
        for name, found in map_ahead(self._read, map(str, files)):
            names.append(name)
            read.append(found)
            size += 0 if isinstance(found, UnreadableError) else len(found)
            if size >= EVAL_BATCH:
                yield from self._name(names, read)
                names, read, size = [], [], 0
        yield from self._name(names, read)

    def _read(self, file: str) -> tuple[str, Windows | UnreadableError]:
        """Return the tokenizer's input for a file, or the error of reading it."""
        inputs: Inputs = self._tokenizer.inputs
        try:
            data = read_bytes(Instance(key=file, split="", label=-1, location=file))
            if isinstance(inputs, ImageInputs):
                return file, [decode_image(data, size=inputs.size)]
            windows = decode_audio(data, sample_rate=inputs.sample_rate, window=inputs.window)
        except UnreadableError as error:
            return file, error
        return file, [window.values for window in windows]

    def _name(
        self, names: Sequence[str], read: Sequence[Windows | UnreadableError]
    ) -> Iterator[Prediction]:
        flat = [one for found in read if not isinstance(found, UnreadableError) for one in found]
        parts = [flat[start : start + EVAL_BATCH] for start in range(0, len(flat), EVAL_BATCH)]
        shares = torch.cat([self._probabilities(part) for part in parts] or [_NOTHING])
        start = 0
        for name, found in zip(names, read, strict=True):
            if isinstance(found, UnreadableError):
                yield Prediction(name, (), str(found))
                continue
            best = shares[start : start + len(found)].mean(0).topk(self.top)
            start += len(found)
            named = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            classes = tuple(
                (self._classes[label], share) for label, share in named if share >= self._least
            )
            yield Prediction(name, classes)

    def _probabilities(self, inputs: Sequence[npt.NDArray[Any]]) -> Tensor:
        """Return the probabilities, float64 (B, N) on the host, of B inputs."""
        values = torch.from_numpy(np.stack(inputs)).to(self._device)
        with torch.inference_mode():
            if isinstance(self._augment, PixelAugment):
                embedded = self._augment.evaluate(values.permute(0, 3, 1, 2))
            else:  # as a store's samples are: the network alone may be of low precision
                embedded = self._augment.evaluate(self._tokenizer.encode(values))
            with make_autocast(self._config, self._device):
                logits: Tensor = self._model(embedded)
            logits = logits.float()
            shares = logits.sigmoid() if self._has_sets else logits.softmax(1)
            return shares.double().cpu()


def checked_threshold(run: Run, threshold: float | None) -> float:
    """Return the least probability of a predicted label; 0 for one label per sample.

    Raises:
        UsageError: it is not in 0–1, or the run learned one label per sample.
    """
    if threshold is None:
        return THRESHOLD if run.has_label_sets else 0.0
    if not run.has_label_sets:
        raise UsageError(
            f"the run {run.path} learned one label per sample; leave --threshold out, which is for "
            "several"
        )
    if not 0 <= threshold <= 1:
        raise UsageError(f"--threshold is {threshold}; expected a probability, 0 to 1")
    return threshold


_NOTHING = torch.empty(0, 0, dtype=torch.float64)


def predict(
    run_path: str | Path,
    files: Sequence[str | Path],
    *,
    top: int = 5,
    device: str = "auto",
    threshold: float | None = None,
) -> list[Prediction]:
    """Decode files, tokenize them as the run's store was, and predict their classes.

    Args:
        run_path: a finished run's folder.
        files: files, folders of them, and patterns such as ``photos/*.jpg``.
        top: number of classes to return.
        device: device of the network.
        threshold: least probability of a label; see `Predictor`.

    Returns:
        One prediction per file, with the error if the file cannot be read.

    Raises:
        UsageError: all named files are missing, or a folder has no files.
    """
    predictor = Predictor(run_path, top=top, device=device, threshold=threshold)
    return list(predictor(list_files(files, predictor.modality)))


def list_files(paths: Sequence[str | Path], modality: Modality) -> list[str]:
    """List the named files, those below folders, and those that match patterns.

    Skips hidden files and extensions other than the modality's below a folder, with a warning.
    Broken links are listed, as are missing files next to others: a shell's pattern may name some
    that are gone by now, and reading them reports it.

    Raises:
        UsageError: all named files are missing, one is a URL, or a folder or pattern yields none.
    """
    files: list[str] = []
    missing: list[str] = []
    for path in map(str, paths):
        found = [path]
        if is_url(path):
            raise UsageError(f"{path} is a URL; download it and pass the file")
        if not os.path.lexists(path):
            if not has_magic(path):
                missing.append(path)
            else:
                found = sorted(glob(path, recursive=True))  # noqa: PTH207 # Path.glob needs a root
        listed = [file for one in found for file in _below(one, modality)]
        if not listed:
            raise UsageError(
                f"{path} yields no {NOUNS[modality][0]} file ({', '.join(EXTENSIONS[modality])}); "
                "name one that does"
            )
        files += listed
    if missing and len(missing) == len(files):
        raise UsageError(
            f"there is no file {missing[0]}; pass {NOUNS[modality][0]} files, folders of them, or "
            "patterns such as 'photos/*.jpg'"
        )
    return files


def _below(path: str, modality: Modality) -> list[str]:
    """Return the file itself, or the files of a modality below a folder."""
    if not os.path.isdir(path):  # noqa: PTH112 # Path.is_dir may raise a PermissionError
        return [path]
    remarks = Remarks()
    found = [
        f"{path.rstrip('/')}/{folder}{entry.name}"
        for folder, entries in walk(path, remarks)
        for entry in entries
        if not entry.is_folder
    ]
    kept = [file for file in found if file.rpartition(".")[2].lower() in EXTENSIONS[modality]]
    for line in remarks.lines():
        _LOG.warning("%s", line)
    if len(kept) < len(found):
        _LOG.warning(
            "%s: %d files are left out, as their names are of no %s file",
            *(path, len(found) - len(kept), NOUNS[modality][0]),
        )
    return kept


def evaluation_augment(
    config: LoopConfig, tokenizer: Tokenizer, device: torch.device
) -> TokenAugment | PixelAugment:
    """Return the transform of tokens, or of pixels, to a run's inputs, for its evaluation."""
    if config.data.pixels is not None:
        settings = replace(config.augment, crop_size=0)
        height, width, _ = tokenizer.inputs.shape
        return PixelAugment((height, width), settings).to(device)
    return TokenAugment(tokenizer.codebook, tokenizer.grid, config.augment).to(device)
