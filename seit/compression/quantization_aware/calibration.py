"""First steps of learned grids, from the weights and from samples.

Legend: R rows that have a step each, n values of a row.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seit.compression.subject import Subject
from seit.compression.weights.layers import Layer
from seit.models import multiples
from seit.packed_weights import LEAST_SCALE

_VALUES = 1 << 14
"""Values of a layer's inputs that are kept of each batch."""
_CLIPS = 80
"""Candidate ranges, as shares of that of the values."""


def fit_steps(values: Tensor, *, bits: int, signed: bool, half: bool = False) -> Tensor:
    """Return the steps of least squared error, float32 (R,), among shares of the values' range.

    LSQ's own start, 2 · mean|v| / √Qp, would span 18 standard deviations at 8 bits.

    Args:
        values: float (R, n).
        bits: bits of a value.
        signed: whether values can be negative.
        half: choose among float16 numbers, as which steps of weights are stored.
    """
    low, high = multiples(bits, signed=signed)
    values = values.float()
    widest = values.amax(1).clamp(min=0) / high
    if low:
        widest = torch.maximum(widest, values.amin(1).clamp(max=0) / low)
    best = torch.full_like(widest, torch.inf)
    steps = widest.clamp(min=LEAST_SCALE)
    for share in torch.linspace(1, 1 / _CLIPS, _CLIPS):
        tried = (widest * share).clamp(min=LEAST_SCALE)
        tried = tried.half().float() if half else tried
        column = tried[:, None]
        rounded = (values / column).round().clamp(low, high) * column
        error = (rounded - values).square().sum(1)
        steps = torch.where(error < best, tried, steps)
        best = torch.minimum(error, best)
    return steps


@torch.inference_mode()
def observe_inputs(subject: Subject, layers: Sequence[Layer]) -> dict[str, Tensor]:
    """Return drawn values (n,) of the inputs of each layer that is called, by name."""
    found: dict[str, list[Tensor]] = {}
    handles = [
        layer.module.register_forward_pre_hook(_recorder(found, layer.name)) for layer in layers
    ]
    for inputs in subject.inputs(subject.calibration_rows):
        subject.model(inputs)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(parts) for name, parts in found.items()}


def _recorder(found: dict[str, list[Tensor]], name: str) -> Any:
    def record(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        del module
        values = args[0].flatten()
        parts = found.setdefault(name, [])
        generator = torch.Generator().manual_seed(len(parts))
        index = torch.randint(len(values), (min(_VALUES, len(values)),), generator=generator)
        parts.append(values[index.to(values.device)].cpu())

    return record
