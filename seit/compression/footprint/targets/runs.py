"""Runs: from the ids of a store, or pixels, to logits or features.

Legend: B batch, H W stored grid, S image side.
"""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from typing_extensions import override

from seit.augment import PixelAugment, TokenAugment
from seit.compression.footprint.targets.base import Call, Counts, Loaded, Target
from seit.compression.footprint.targets.onnx import OnnxFile
from seit.errors import UsageError
from seit.training import (
    FULL_BITS,
    WEIGHTS_NAME,
    Run,
    bytes_by_dtype,
    evaluation_augment,
    layers_of,
    load_backbone,
    summed,
)

PROGRAM_NAME = "classifier.int8.onnx"
"""File of a run that is deployed in ONNX Runtime instead of its weights."""
_PROGRAM_BITS = 8
"""Bits of the inputs of its quantized layers."""
_CPU = torch.device("cpu")
_SEED = 0


class RunTarget(Target):
    """A finished run, in PyTorch or, if it has a program of ONNX Runtime, in that."""

    kind = "run"

    @classmethod
    @override
    def fits(cls, path: Path) -> bool:
        return path.is_dir()

    @override
    def counts(self) -> Counts:
        run, program = self._open(), self._program
        augment = _augment(run)
        shape = (augment.channels, *augment.output_size)
        model = load_backbone(run, augment, _CPU)
        bits = FULL_BITS if program is None else _PROGRAM_BITS
        layers = layers_of(run, model, shape, input_bits=bits)
        name = f"{run.settings.model.name}, run of seit {run.command}"
        if program is not None:
            file = program.counts()
            whole = summed(layers, file.whole.bytes, file.whole.bytes_by_dtype)
            return Counts(name=name, runtime=file.runtime, whole=whole, layers=tuple(layers))
        weights = run.path / WEIGHTS_NAME
        whole = summed(layers, weights.stat().st_size, bytes_by_dtype(weights))
        return Counts(name=name, runtime="PyTorch, eager", whole=whole, layers=tuple(layers))

    @override
    def prepare(self) -> None:
        self._open()
        if self._program is not None:
            self._program.prepare()

    @override
    def load(self, threads: int) -> Loaded:
        run = self._open()
        if self._program is not None:
            return self._program.load(threads)
        augment = _augment(run)
        network = load_backbone(run, augment, _CPU).eval()
        return LoadedRun(augment, network, is_whole=run.kind.classifies)

    @property
    def _program(self) -> OnnxFile | None:
        path = self.path / PROGRAM_NAME
        return OnnxFile(path) if path.is_file() else None

    def _open(self) -> Run:
        run = Run.open(self.path)
        if not run.kind.one_network:
            raise UsageError(
                f"{self.path} is a run of `seit {run.command}`, which is no single network over "
                "tokens; name a run of `seit train`, `pretrain`, `tune` or `compress`"
            )
        return run


class LoadedRun(Loaded):
    """Network of a run with the steps from stored ids, or pixels, to its inputs."""

    def __init__(
        self, augment: TokenAugment | PixelAugment, network: nn.Module, *, is_whole: bool
    ) -> None:
        self.augment = augment
        self.network = network if is_whole else _Features(network)

    @override
    def call(self, batch_size: int) -> Call:
        return partial(self._pass, _inputs(self.augment, batch_size))

    @torch.inference_mode()
    def _pass(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.network(self.augment.evaluate(inputs))
        return logits


class _Features(nn.Module):
    """Features of an encoder, as its probes see them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.network.forward_features(inputs)  # type: ignore[operator]
        features: Tensor = self.network.forward_head(hidden, pre_logits=True)  # type: ignore[operator]
        return features


def _augment(run: Run) -> TokenAugment | PixelAugment:
    return evaluation_augment(run.settings, run.load_tokenizer(), _CPU)


def _inputs(augment: TokenAugment | PixelAugment, batch_size: int) -> Tensor:
    """Return random ids (B, H, W), or pixels uint8 (B, 3, S, S)."""
    generator = torch.Generator().manual_seed(_SEED)
    if isinstance(augment, PixelAugment):
        shape = (batch_size, 3, *augment.grid)
        return torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    codes = augment.codebook.shape[-2]
    return torch.randint(codes, (batch_size, *augment.stored_grid), generator=generator)
