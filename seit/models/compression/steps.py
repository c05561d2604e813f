"""Rounding to multiples of learned steps, for training in few bits and for what it leaves.

LSQ: Learned step size quantization (Esser et al., arXiv 1902.08153), of weights with a step for
each output channel, and of the inputs of layers with one step.

Legend: O output channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from seit.errors import DamagedError
from seit.packed_weights import LEAST_SCALE

INPUTS = "inputs"
"""Name of the submodule of a layer that rounds its inputs."""
_BITS = range(2, 9)


@dataclass(frozen=True, kw_only=True)
class InputGrid:
    """Rounding of the inputs of a layer.

    Attributes:
        bits: bits of a value, 2–8.
        signed: whether values can be negative.
    """

    bits: int
    signed: bool


class LearnedSteps(nn.Module):
    """Rounding of values to multiples of a step, clamped to those that ``bits`` can count.

    The parameter is the largest value, step · (highest multiple), and not the step: Adam's updates
    do not depend on the size of a gradient, and in proportion to the range they are the same for
    any number of bits. Everything is float32, even under autocast.

    Args:
        bits: bits of a value.
        signed: multiples are −2ᵇ⁻¹ … 2ᵇ⁻¹ − 1 if True, 0 … 2ᵇ − 1 if False.
        channels: O, for a step for each index of the first dimension; 0 for one step.
        half: whether steps are rounded to float16, as they are stored.

    Attributes:
        limit: float32 (O,) or (), the largest value.
    """

    def __init__(self, bits: int, *, signed: bool, channels: int = 0, half: bool = False) -> None:
        super().__init__()
        self.bits = bits
        self.half_steps = half
        self.low, self.high = multiples(bits, signed=signed)
        self.limit = nn.Parameter(torch.ones(channels) if channels else torch.ones(()))

    @override
    def forward(self, values: Tensor) -> Tensor:
        """Return rounded values, float32."""
        values, steps = values.float(), self.steps(values.ndim)
        if not (torch.is_grad_enabled() and self.limit.requires_grad):
            return (values / steps).round().clamp(self.low, self.high) * steps
        count = values[0].numel()  # of a sample, or of an output channel
        rounded: Tensor = round_to_steps(
            values, steps, low=self.low, high=self.high, scale=(count * self.high) ** -0.5
        )
        return rounded

    def steps(self, ndim: int) -> Tensor:
        """Return the steps for values of so many dimensions, float32 (O, 1, …) or ()."""
        steps = (self.limit / self.high).clamp(min=LEAST_SCALE)
        if self.half_steps:
            steps = steps + (steps.half().float() - steps).detach()
        return steps.reshape(-1, *(1,) * (ndim - 1)) if steps.ndim else steps

    def codes(self, values: Tensor) -> Tensor:
        """Return the multiples that values are rounded to, int16 of their shape."""
        steps = self.steps(values.ndim)
        return (values.float() / steps).round().clamp(self.low, self.high).to(torch.int16)

    @torch.no_grad()
    def set_steps(self, steps: Tensor) -> None:
        """Set the steps, (O,) or ()."""
        self.limit.copy_(steps * self.high)


def multiples(bits: int, *, signed: bool) -> tuple[int, int]:
    """Return the lowest and the highest multiple of a step, −Qn and Qp."""
    if signed:
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1


class _Rounding(torch.autograd.Function):
    @staticmethod
    @override
    def forward(
        ctx: Any, values: Tensor, steps: Tensor, low: int, high: int, scale: float
    ) -> Tensor:
        ratios = values / steps
        rounded = ratios.round().clamp(low, high)
        ctx.save_for_backward(ratios, rounded)
        ctx.bounds, ctx.scale, ctx.shape = (low, high), scale, steps.shape
        return rounded * steps

    @staticmethod
    @override
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (ratios, rounded) = gradients, ctx.saved_tensors
        inside = (ratios >= ctx.bounds[0]) & (ratios <= ctx.bounds[1])
        of_steps = gradient * (rounded - torch.where(inside, ratios, 0))
        return gradient * inside, of_steps.sum_to_size(ctx.shape) * ctx.scale, None, None, None


def round_to_steps(values: Tensor, steps: Tensor, *, low: int, high: int, scale: float) -> Tensor:
    """Return steps · clamp(round(values / steps)), with the gradients of LSQ (section 2.1).

    The gradient of values passes inside the bounds and vanishes outside; that of a step is
    round(v / s) − v / s inside and the bound outside, summed, times ``scale``.

    Args:
        values: float32.
        steps: float32, of a shape that values broadcast with.
        low: lowest multiple.
        high: highest multiple.
        scale: factor of the gradient of steps, 1 / √(N · Qp) for N values.
    """
    result: Tensor = _Rounding.apply(values, steps, low, high, scale)
    return result


def round_inputs(module: Any, args: Any) -> Any:
    """Round the inputs of a layer; a forward pre-hook."""
    return (module.get_submodule(INPUTS)(args[0]), *args[1:])


def add_input_steps(layer: nn.Module, grid: InputGrid) -> LearnedSteps:
    """Round the inputs of a layer from now on; return the new submodule."""
    steps = LearnedSteps(grid.bits, signed=grid.signed)
    layer.add_module(INPUTS, steps)
    layer.register_forward_pre_hook(round_inputs)
    return steps


def attach_input_steps(model: nn.Module, grids: Mapping[str, InputGrid], *, origin: str) -> None:
    """Round the inputs of layers as a file tells, by name, with steps to load.

    Raises:
        DamagedError: there is no such layer or rounding.
    """
    layers = dict(model.named_modules())
    for name, grid in grids.items():
        layer = layers.get(name)
        if not isinstance(layer, nn.Linear | nn.Conv2d) or grid.bits not in _BITS:
            raise DamagedError(
                f"{origin} rounds the inputs of {name!r} to {grid.bits} bits, and the network has "
                "no such layer or bits; restore it from a copy"
            )
        add_input_steps(layer, grid)
