"""Tokenizers: their encoder, from pixels or waveforms to ids.

Legend: B batch.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from typing_extensions import override

from seit.compression.footprint.targets.base import Call, Counts, Loaded, Target
from seit.errors import UsageError
from seit.exports import make_encoder
from seit.packed_weights import PackedWeight, pack_weights
from seit.tokenizers import (
    ImageInputs,
    Tokenizer,
    list_shipped,
    open_tokenizer,
    tokenizer_bytes,
)
from seit.training import FULL_BITS, Footprint, LayerFootprint, count_flops

_SEED = 0


class TokenizerTarget(Target):
    """A tokenizer's file, or a tokenizer of the package by name."""

    kind = "tokenizer"

    @classmethod
    @override
    def fits(cls, path: Path) -> bool:
        return path.suffix == ".safetensors" or str(path) in list_shipped()

    @override
    def prepare(self) -> None:
        open_tokenizer(self.path)

    @override
    def counts(self) -> Counts:
        tokenizer = open_tokenizer(self.path)
        tensors = {**tokenizer.tensors(), "codebook": tokenizer.codebook}
        packed = tokenizer.packed
        size = (
            self.path.stat().st_size
            if self.path.is_file()
            else len(tokenizer_bytes(tokenizer, with_codebook=True))
        )
        flops = _flops(tokenizer)
        return Counts(
            name=f"{tokenizer.name} tokenizer",
            runtime="PyTorch and NumPy",
            whole=Footprint(
                parameters=sum(one.numel() for one in tensors.values()),
                nonzero_parameters=sum(int(one.count_nonzero()) for one in tensors.values()),
                bytes=size,
                bytes_by_dtype=_by_dtype(pack_weights(tensors, packed)),
                flops=flops,
                # Operations are not known by layer, so neither are those of weights of few bits.
                bops=None if flops is None or packed else flops // 2 * FULL_BITS * FULL_BITS,
            ),
            layers=_layers(tensors, packed),
        )

    @override
    def load(self, threads: int) -> Loaded:
        return LoadedTokenizer(open_tokenizer(self.path))


class LoadedTokenizer(Loaded):
    """A tokenizer's encoder."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @override
    def call(self, batch_size: int) -> Call:
        generator = torch.Generator().manual_seed(_SEED)
        inputs = self.tokenizer.inputs
        shape = (batch_size, *inputs.shape)
        if isinstance(inputs, ImageInputs):
            values = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        else:
            values = torch.rand(shape, generator=generator) * 2 - 1
        return partial(self.tokenizer.encode, values)


def _flops(tokenizer: Tokenizer) -> int | None:
    """Return the operations of encoding one input, Fourier transforms not counted."""
    dtype = torch.uint8 if isinstance(tokenizer.inputs, ImageInputs) else torch.float32
    try:
        return count_flops(make_encoder(tokenizer), tokenizer.inputs.shape, dtype=dtype).forward
    except (UsageError, RuntimeError):  # a published tokenizer, or an operation without shapes
        return None


def _layers(
    tensors: Mapping[str, Tensor], packed: Mapping[str, PackedWeight]
) -> tuple[LayerFootprint, ...]:
    """Return a row for the tensors of each layer; their operations are counted together."""
    layers: dict[str, dict[str, Tensor]] = {}
    for name, one in tensors.items():
        layers.setdefault(name.rpartition(".")[0] or name, {})[name] = one
    return tuple(
        LayerFootprint(
            name=layer,
            parameters=sum(one.numel() for one in held.values()),
            nonzero_parameters=sum(int(one.count_nonzero()) for one in held.values()),
            bytes=sum(_by_dtype(pack_weights(held, few)).values()),
            flops=None,
            weight_bits=next((one.grid.bits for one in few.values()), None),
        )
        for layer, held in layers.items()
        for few in [{name: packed[name] for name in held if name in packed}]
    )


def _by_dtype(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for one in tensors.values():
        name = str(one.dtype).removeprefix("torch.")
        sizes[name] = sizes.get(name, 0) + one.nbytes
    return sizes
