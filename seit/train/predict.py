"""Using a finished run: evaluate it on a store, or name the class of raw images.

Legend: B batch, N classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from seit.augment import PixelAugment, TokenAugment
from seit.devices import choose_device
from seit.errors import SeitError, UsageError
from seit.models import load_weights
from seit.shards import Store, open_store
from seit.tokenize.decode import decode_image
from seit.tokenizers import Tokenizer, load_tokenizer
from seit.train.config import TrainConfig
from seit.train.evaluate import Evaluation, evaluate
from seit.train.feeds import EVAL_BATCH, PIXEL_FLIP_PROB, build_model, make_feed
from seit.train.loop import make_autocast
from seit.train.run import TOKENIZER_NAME, Run

MAX_FILE_BYTES = 1 << 30


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one file, best first, with their probabilities (0–1)."""

    file: str
    classes: tuple[tuple[str, float], ...]


def evaluate_run(
    run_path: str | Path, store: Store | str | Path, *, split: str = "val", device: str = "auto"
) -> Evaluation:
    """Evaluate a run's weights on one split of a store, every sample once.

    Raises:
        UsageError: the store was made by another tokenizer, has other classes, or no labelled
            samples in that split.
    """
    run = Run.open(run_path)
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
    config = run.config
    config = replace(config, data=replace(config.data, val_split=split))
    target = choose_device(device)
    feed = make_feed(store, config, target, with_train=False)
    model = _load_model(run, config, feed.augment, tokenizer, target)
    return evaluate(
        model,
        feed.evaluation_inputs(),
        num_classes=len(run.classes),
        device=target,
        autocast=make_autocast(config, target),
    )


def predict(
    run_path: str | Path, files: Sequence[str | Path], *, top: int = 5, device: str = "auto"
) -> list[Prediction]:
    """Decode image files, tokenize them as the run's store was, and name their classes.

    Raises:
        UsageError: a file is missing.
        SeitError: a file is not a readable image.
    """
    run = Run.open(run_path)
    config = run.config
    target = choose_device(device)
    tokenizer = load_tokenizer(run.path / TOKENIZER_NAME).to(target)
    augment = _augment(config, tokenizer, target)
    model = _load_model(run, config, augment, tokenizer, target).eval()
    predictions: list[Prediction] = []
    for start in range(0, len(files), EVAL_BATCH):
        chunk = files[start : start + EVAL_BATCH]
        images = torch.from_numpy(
            np.stack([_read_pixels(Path(file), tokenizer.image_size) for file in chunk])
        ).to(target)
        with torch.inference_mode(), make_autocast(config, target):
            if isinstance(augment, PixelAugment):
                inputs = augment.evaluate(images.permute(0, 3, 1, 2))
            else:
                inputs = augment.evaluate(tokenizer.encode(images))
            probabilities = model(inputs).float().softmax(1)
        best = probabilities.topk(min(top, len(run.classes)), dim=1)
        for file, values, indices in zip(
            chunk, best.values.tolist(), best.indices.tolist(), strict=True
        ):
            named = tuple(
                (run.classes[index], value) for index, value in zip(indices, values, strict=True)
            )
            predictions.append(Prediction(str(file), named))
    return predictions


def _read_pixels(path: Path, size: int) -> "np.typing.NDArray[np.uint8]":
    if not path.is_file():
        raise UsageError(f"there is no file {path}; pass image files")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise UsageError(f"{path} is larger than {MAX_FILE_BYTES} bytes; is it an image?")
    try:
        return decode_image(path.read_bytes(), size=size)
    except SeitError as error:
        raise SeitError(f"{path} cannot be read: {error}") from error


def _augment(
    config: TrainConfig, tokenizer: Tokenizer, device: torch.device
) -> TokenAugment | PixelAugment:
    if config.data.pixels is not None:
        settings = replace(config.augment, crop_size=0, flip_prob=PIXEL_FLIP_PROB)
        return PixelAugment((tokenizer.image_size, tokenizer.image_size), settings).to(device)
    return TokenAugment(tokenizer.codebook, tokenizer.grid, config.augment).to(device)


def _load_model(
    run: Run,
    config: TrainConfig,
    augment: TokenAugment | PixelAugment,
    tokenizer: Tokenizer,
    device: torch.device,
) -> nn.Module:
    model = build_model(
        config.model,
        augment,
        num_classes=len(run.classes),
        patch_size=tokenizer.image_size // tokenizer.grid[0],
    )
    load_weights(model, run.load_weights(), origin=str(run.path))
    return model.to(device)
