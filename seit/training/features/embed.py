"""Features of a finished run's backbone for every sample of a split, as written by `seit embed`.

Legend: B batch, n samples, D feature dim, C h w embedded tokens.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seit.augment import PixelAugment, TokenAugment
from seit.devices import choose_device
from seit.errors import UsageError
from seit.files import check_new_file, new_file, sha256_of
from seit.models import TOKENS, captured, load_weights, timm_layers
from seit.outcomes import Outcome
from seit.shards import Store, as_store
from seit.stream import Loader, Mode, loader
from seit.training.features.base import Origins
from seit.training.features.formats import format_of
from seit.training.feeds import EVAL_BATCH, make_augment
from seit.training.initialize import check_tokens
from seit.training.networks import build_model, load_run_model
from seit.training.precision import make_autocast
from seit.training.run import WEIGHTS_NAME, Run

_LOG = logging.getLogger(__name__)
HEAD = "head"
"""Name of the input of the classifier, or of the probes of an encoder."""


@dataclass(frozen=True, repr=False)
class EmbedResult(Outcome):
    """Summary of a written file of features.

    Attributes:
        file: the file.
        split: the split.
        layer: the layer.
        samples: n.
        dim: D.
        bytes: size of the file.
        samples_per_second: rate of the whole call.
    """

    file: Path
    split: str
    layer: str
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
    layer: str = HEAD,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> EmbedResult:
    """Write the features of a layer for every sample of a split, batch by batch.

    Memory is bounded: two windows of the split, and 16 bytes per sample. The file appears when it
    is complete.

    Args:
        run_path: a finished run's folder, from `seit train`, `seit tune` or `seit pretrain`.
        store: a store of the same tokenizer, opened or by path.
        out: a new .safetensors or .parquet file.
        split: the split.
        layer: ``head``, the input of the classifier's head (or of an encoder's probes); else the
            mean of a layer over its positions: ``blocks.0`` …, a stage, or ``tokens``, the vectors
            of the codes.
        device: device of the network.
        progress: called with (samples done, samples of the split).

    Raises:
        UsageError: the run has not finished, is a continual one or was trained on pixels, or has no
            such layer; the store was made by another tokenizer or lacks the split; or the file
            exists or its suffix names no format.
    """
    started = time.perf_counter()
    out = Path(out)
    check_new_file(out)
    make_writer = format_of(out)
    run = Run.open(run_path)
    store = as_store(store)
    settings = run.settings if run.kind.one_network else run.config  # raises for such runs
    if settings.data.pixels is not None:
        raise UsageError(f"the run {run.path} was trained on pixels; embed takes runs on tokens")
    check_tokens(run, store)
    target, chosen = choose_device(device), store[split]
    if chosen.label_sets is not None:
        _LOG.warning("samples have several labels, which a file of features does not hold")
    augment = make_augment(store, settings, target, with_train=False)
    read = _reader(load_backbone(run, augment, target).eval(), layer)
    weights = sha256_of(run.finished_file(WEIGHTS_NAME))
    origins = Origins(layer=layer, split=split, store=store.card.seal, weights=weights)
    done = dim = 0
    with (
        new_file(out) as file,
        make_writer(file, classes=store.classes, origins=origins) as writer,
        torch.inference_mode(),
    ):
        for batch in _batches(store, split, target).epoch(0):
            inputs = augment.evaluate(batch.tokens)
            with make_autocast(settings, target):
                found = read(inputs).float().cpu().numpy()
            labels = batch.labels.cpu().numpy()
            if labels.ndim == 2:  # the file has one label per sample
                labels = np.full(len(batch), -1)
            writer.add(found, labels, batch.keys)
            done, dim = done + len(batch), found.shape[1]
            if progress is not None:
                progress(done, len(chosen))
    seconds = time.perf_counter() - started
    return EmbedResult(out, split, layer, done, dim, out.stat().st_size, done / seconds)


def _batches(store: Store, split: str, device: torch.device) -> Loader:
    """Return the samples of a split in stored order, streamed unless damaged ones are skipped."""
    mode: Mode = "resident" if store.skips_damage else "streaming"
    return loader(store[split], batch_size=EVAL_BATCH, device=device, shuffle=False, mode=mode)


def _reader(model: nn.Module, layer: str) -> Callable[[Tensor], Tensor]:
    """Return the function from inputs (B, C, h, w) to the features (B, D) of a layer.

    Raises:
        UsageError: the network has no such layer.
    """
    network: Any = model
    if layer == HEAD:
        return lambda inputs: network.forward_head(
            network.forward_features(inputs), pre_logits=True
        )
    if layer == TOKENS:
        return lambda inputs: inputs.mean((2, 3))
    layers = timm_layers(model)
    if layer not in layers.names:
        raise UsageError(f"there is no layer {layer!r}; {_listed((HEAD, TOKENS, *layers.names))}")
    outputs = {name: path for name, path in layers.outputs.items() if name == layer}
    places = {name: path for name, path in layers.inputs.items() if name == layer}

    def read(inputs: Tensor) -> Tensor:
        with captured(model, outputs, inputs=places) as found:
            network.forward_features(inputs)
        return layers.grid(layer, found[layer], (inputs.shape[2], inputs.shape[3])).mean((1, 2))

    return read


def _listed(names: Sequence[str]) -> str:
    return f"the layers are {', '.join(names)}"


def load_backbone(
    run: Run, augment: TokenAugment | PixelAugment, device: torch.device
) -> nn.Module:
    """Load a classifier's network, or the encoder of a pretraining run, with its final weights.

    Raises:
        UsageError: the run has not finished.
        DamagedError: its weights are corrupt.
    """
    if run.kind.classifies:
        return load_run_model(run, augment, run.load_tokenizer(), device)
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
