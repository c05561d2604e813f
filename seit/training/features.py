"""Features of a finished run's backbone for every sample of a split, as written by `seit embed`.

Legend: B batch, n samples, D feature dim, C h w embedded tokens.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save
from torch import nn

from seit.augment import PixelAugment, TokenAugment
from seit.devices import choose_device
from seit.errors import UsageError
from seit.files import check_new_file, write_atomically
from seit.models import load_weights
from seit.outcomes import Outcome
from seit.shards import Store, as_store
from seit.stream import loader
from seit.tensors import read_arrays
from seit.tokenizers import load_tokenizer
from seit.training.feeds import EVAL_BATCH, make_augment
from seit.training.initialize import check_tokens
from seit.training.networks import build_model, load_run_model
from seit.training.precision import make_autocast
from seit.training.run import TOKENIZER_NAME, Run

_FEATURES, _LABELS, _KEYS, _KEY_ENDS = "features", "labels", "keys", "key_ends"


@dataclass(frozen=True)
class Features:
    """Features of a split's samples, in the split's order.

    Attributes:
        features: float32 (n, D).
        labels: int64 (n,), indices of the store's classes; −1 for an unlabeled sample.
        keys: n texts.
    """

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    keys: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class EmbedResult(Outcome):
    """Summary of a written file of features.

    Attributes:
        file: the .safetensors file.
        split: the split.
        samples: n.
        dim: D.
        bytes: size of the file.
        samples_per_second: rate of the whole call.
    """

    file: Path
    split: str
    samples: int
    dim: int
    bytes: int
    samples_per_second: float


def embed_split(
    run_path: str | Path,
    store: Store | str | Path,
    out: str | Path,
    *,
    split: str = "val",
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> EmbedResult:
    """Write the input of a run's classifier head (or of its probes) for every sample of a split.

    The file holds the tensors `features` float32 (n, D), `labels` int64 (n,), `keys` uint8, the
    concatenated UTF-8 of the keys, and `key_ends` int64 (n,), their ends in bytes;
    `read_features` reads it. All n × D values are held in memory.

    Args:
        run_path: a finished run's folder, from `seit train`, `seit tune` or `seit pretrain`.
        store: a store of the same tokenizer, opened or by path.
        out: a new .safetensors file.
        split: the split.
        device: device of the network.
        progress: called with (samples done, samples of the split).

    Raises:
        UsageError: the run has not finished, is a continual one or was trained on pixels; the
            store was made by another tokenizer or lacks the split; or the file exists.
    """
    started = time.perf_counter()
    out = Path(out)
    check_new_file(out)
    run = Run.open(run_path)
    store = as_store(store)
    settings = run.settings if run.kind.one_network else run.config  # raises for such runs
    if settings.data.pixels is not None:
        raise UsageError(f"the run {run.path} was trained on pixels; embed takes runs on tokens")
    check_tokens(run, store)
    target, chosen = choose_device(device), store[split]
    augment = make_augment(store, settings, target, with_train=False)
    model = load_backbone(run, augment, target).eval()
    parts: list[npt.NDArray[np.float32]] = []
    batches = loader(chosen, batch_size=EVAL_BATCH, device=target, shuffle=False)
    done, keys, labels = 0, [], []
    with torch.inference_mode(), make_autocast(settings, target):
        for batch in batches.epoch(0):
            hidden = model.forward_features(augment.evaluate(batch.tokens))  # type: ignore[operator]
            found = model.forward_head(hidden, pre_logits=True)  # type: ignore[operator]
            parts.append(found.float().cpu().numpy())
            labels.append(batch.labels.cpu().numpy())
            keys += batch.keys
            done += len(batch)
            if progress is not None:
                progress(done, len(chosen))
    features = np.concatenate(parts)
    encoded = [key.encode() for key in keys]
    tensors: dict[str, npt.NDArray[Any]] = {
        _FEATURES: features,
        _LABELS: np.concatenate(labels).astype(np.int64),
        _KEYS: np.frombuffer(b"".join(encoded), np.uint8),
        _KEY_ENDS: np.cumsum([len(key) for key in encoded], dtype=np.int64),
    }
    write_atomically(out, save(tensors))
    seconds = time.perf_counter() - started
    return EmbedResult(out, split, done, features.shape[1], out.stat().st_size, done / seconds)


def read_features(path: str | Path) -> Features:
    """Read a file written by `seit embed`.

    Raises:
        DamagedError: the file is corrupt.
    """
    tensors = read_arrays(Path(path))
    text, ends = tensors[_KEYS].tobytes(), tensors[_KEY_ENDS].tolist()
    keys = tuple(text[a:b].decode() for a, b in zip([0, *ends], ends, strict=False))
    return Features(tensors[_FEATURES], tensors[_LABELS], keys)


def load_backbone(
    run: Run, augment: TokenAugment | PixelAugment, device: torch.device
) -> nn.Module:
    """Load a classifier's network, or the encoder of a pretraining run, with its final weights.

    Raises:
        UsageError: the run has not finished.
        DamagedError: its weights are corrupt.
    """
    if run.kind.classifies:
        return load_run_model(run, augment, load_tokenizer(run.path / TOKENIZER_NAME), device)
    weights = run.load_weights()
    dim = weights["cls_token"].numel() if "cls_token" in weights else 0
    head = {"head.weight": torch.zeros(dim), "head.bias": torch.zeros(1)}
    model = build_model(
        run.settings.model, augment, num_classes=1, patch_size=1, weights={**weights, **head}
    )
    model.reset_classifier(0)  # type: ignore[operator]
    load_weights(model, weights, origin=str(run.path))
    return model.to(device)


def random_backbone(
    run: Run, augment: TokenAugment | PixelAugment, device: torch.device, *, seed: int
) -> nn.Module:
    """Return the backbone of a run's settings with new weights, drawn from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(
            run.settings.model, augment, num_classes=max(1, len(run.classes)), patch_size=1
        )
    return model.to(device)
