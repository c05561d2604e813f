"""Using a finished run: evaluate it on a store, or name the class of raw images or audio.

Legend: B batch, N classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from seit.augment import PixelAugment, TokenAugment
from seit.devices import choose_device
from seit.errors import SeitError, UnreadableError, UsageError
from seit.shards import Store, open_store
from seit.tokenize.audio import decode_audio
from seit.tokenize.decode import decode_image
from seit.tokenize.sources.media import NOUNS
from seit.tokenizers import ImageInputs, Inputs, Tokenizer, load_tokenizer
from seit.train.config import TrainConfig
from seit.train.evaluate import Evaluation, evaluate
from seit.train.feeds import EVAL_BATCH, PIXEL_FLIP_PROB, make_feed
from seit.train.loading import load_run_model
from seit.train.precision import make_autocast
from seit.train.run import TOKENIZER_NAME, Run

MAX_FILE_BYTES = 1 << 30


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one file, best first, with their probabilities (0–1)."""

    file: str
    classes: tuple[tuple[str, float], ...]


def evaluate_run(
    run_path: str | Path,
    store: Store | str | Path,
    *,
    split: str = "val",
    device: str = "auto",
    pixels: str | Path | None = None,
) -> Evaluation:
    """Evaluate a run's weights on one split of a store, every sample once.

    Args:
        run_path: the run's folder.
        store: the store, opened or by path.
        split: its split.
        device: auto, cpu, cuda, mps.
        pixels: SRC of the images of a run that was trained on pixels. The one that the run's own
            settings name is not opened: they may be anybody's.

    Raises:
        UsageError: the store was made by another tokenizer, has other classes, or no labelled
            samples in that split; or the run takes pixels and none are named.
    """
    run = Run.open(run_path)
    config = run.config
    source = _named_pixels(run, config, pixels)
    store = store if isinstance(store, Store) else open_store(store)
    tokenizer = load_tokenizer(run.path / TOKENIZER_NAME)
    if tokenizer.fingerprint != store.card.tokenizer.fingerprint:
        raise UsageError(
            f"{store.folder} was made by another tokenizer than the run {run.path} knows; tokenize "
            f"it with --tokenizer {run.path / TOKENIZER_NAME}"
        )
    if store.classes != run.classes:
        raise UsageError(f"{store.folder} has other classes than the run {run.path} was trained on")
    if not (store[split].labels >= 0).any():
        raise UsageError(f"split {split!r} of {store.folder} holds no labelled samples to evaluate")
    config = replace(config, data=replace(config.data, val_split=split, pixels=source))
    target = choose_device(device)
    feed = make_feed(store, config, target, with_train=False)
    model = load_run_model(run, feed.augment, tokenizer, target)
    return evaluate(
        model,
        feed.evaluation_inputs(),
        num_classes=len(run.classes),
        device=target,
        autocast=make_autocast(config, target),
    )


def _named_pixels(run: Run, config: TrainConfig, pixels: str | Path | None) -> str | None:
    """The SRC that the caller names, where the run takes one."""
    recorded = config.data.pixels
    if recorded is not None and pixels is None:
        raise UsageError(
            f"the run {run.path} was trained on the pixels of {recorded!r}; name the images to "
            "evaluate it on by --pixels SRC"
        )
    if recorded is None and pixels is not None:
        raise UsageError(f"the run {run.path} was trained on tokens; leave --pixels out")
    return None if pixels is None else str(pixels)


def predict(
    run_path: str | Path, files: Sequence[str | Path], *, top: int = 5, device: str = "auto"
) -> list[Prediction]:
    """Decode files, tokenize them as the run's store was, and name their classes.

    The probabilities of an audio file of several windows are the mean over them.

    Raises:
        UsageError: a file is missing.
        SeitError: a file is no readable image (no readable audio).
    """
    run = Run.open(run_path)
    config = run.config
    target = choose_device(device)
    tokenizer = load_tokenizer(run.path / TOKENIZER_NAME).to(target)
    augment = _augment(config, tokenizer, target)
    model = load_run_model(run, augment, tokenizer, target).eval()
    totals = torch.zeros(len(files), len(run.classes), dtype=torch.float64)
    counts = torch.zeros(len(files), 1, dtype=torch.float64)
    inputs = _inputs([Path(file) for file in files], tokenizer.inputs)
    while batch := list(islice(inputs, EVAL_BATCH)):
        numbers = torch.tensor([number for number, _ in batch])
        values = torch.from_numpy(np.stack([entry for _, entry in batch])).to(target)
        with torch.inference_mode(), make_autocast(config, target):
            if isinstance(augment, PixelAugment):
                embedded = augment.evaluate(values.permute(0, 3, 1, 2))
            else:
                embedded = augment.evaluate(tokenizer.encode(values))
            probabilities = model(embedded).float().softmax(1)
        totals.index_add_(0, numbers, probabilities.double().cpu())
        counts.index_add_(0, numbers, torch.ones(len(batch), 1, dtype=torch.float64))
    classes = run.classes
    best = (totals / counts).topk(min(top, len(classes)), dim=1)
    return [
        Prediction(
            str(file),
            tuple((classes[n], value) for n, value in zip(indices, values, strict=True)),
        )
        for file, values, indices in zip(
            files, best.values.tolist(), best.indices.tolist(), strict=True
        )
    ]


def _inputs(paths: Sequence[Path], inputs: Inputs) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """What the tokenizer takes of each file, and the file's number."""
    for number, path in enumerate(paths):
        if not path.is_file():
            raise UsageError(f"there is no file {path}; pass {NOUNS[inputs.modality][0]} files")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UsageError(f"{path} is larger than {MAX_FILE_BYTES} bytes; is it the right file?")
        data = path.read_bytes()
        try:
            if isinstance(inputs, ImageInputs):
                yield number, decode_image(data, size=inputs.size)
                continue
            windows = decode_audio(data, sample_rate=inputs.sample_rate, window=inputs.window)
        except UnreadableError as error:
            raise SeitError(f"{path} cannot be read: {error}") from error
        for window in windows:
            yield number, window.values


def _augment(
    config: TrainConfig, tokenizer: Tokenizer, device: torch.device
) -> TokenAugment | PixelAugment:
    if config.data.pixels is not None:
        settings = replace(config.augment, crop_size=0, flip_prob=PIXEL_FLIP_PROB)
        height, width, _ = tokenizer.inputs.shape
        return PixelAugment((height, width), settings).to(device)
    return TokenAugment(tokenizer.codebook, tokenizer.grid, config.augment).to(device)
