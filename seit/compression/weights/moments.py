"""Second moments of a layer's inputs over the calibration samples, in bounded memory.

Legend: B batch, g groups of a convolution (1 for linear layers), R rows (positions of the samples),
n inputs of one output channel, times the kernel.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_MAX_VALUES = 1 << 24
"""Values of unfolded inputs in memory at a time."""
_LEAST_DAMPING = 1e-4
"""Moments are sums of float32 products, with errors of up to about 1e-6 of their mean diagonal. A
smaller damping would let these errors, divided by it, replace the weight where inputs never lie."""


@dataclass(frozen=True)
class Moments:
    """Moments of the inputs x̂ of a layer, whose counterparts in the float network are x.

    Attributes:
        gram: float64 (g, n, n), the mean of x̂ x̂ᵀ.
        cross: float64 (g, n, n), the mean of x x̂ᵀ.
    """

    gram: Tensor
    cross: Tensor

    def wanted(self, weight: Tensor, *, damping: float) -> Tensor:
        """Return the weight (O, I) that maps x̂ best to what ``weight`` makes of x, float64.

        E‖W x − Ŵ x̂‖² = E‖(W' − Ŵ) x̂‖² + const. with W' = W E[x x̂ᵀ] E[x̂ x̂ᵀ]⁻¹ (asymmetric
        calibration, as in arXiv 2504.02692), so that a layer makes up for the errors before it.
        Where x̂ never lies, W' is W.

        Args:
            weight: float64 (O, I).
            damping: pull towards ``weight``, relative to the mean diagonal of the gram; less than
                1e-4 counts as 1e-4.
        """
        parts = weight.reshape(len(self.gram), -1, weight.shape[1])
        mean = self.gram.diagonal(dim1=1, dim2=2).mean(1)
        share = max(damping, _LEAST_DAMPING)
        ridge = (share * torch.where(mean > 0, mean, 1.0))[:, None, None]
        damped = self.gram + ridge * torch.eye(self.gram.shape[1]).to(self.gram)
        goal = parts @ self.cross + ridge * parts
        found: Tensor = torch.linalg.solve(damped, goal, left=False)
        return found.reshape(weight.shape)


class _Reached(Exception):  # noqa: N818 - ends a forward pass, and is no error
    """The inputs of a layer are known, and the rest of the forward pass is of no use."""


@contextmanager
def tapped(module: nn.Module, see: Callable[[Tensor], None]) -> Iterator[None]:
    """Pass the input of each call of a module to ``see`` meanwhile."""
    handle = module.register_forward_pre_hook(lambda _, args: see(args[0]))
    try:
        yield
    finally:
        handle.remove()


def call_order(model: nn.Module, inputs: Tensor, names: Iterable[str]) -> dict[str, int]:
    """Return how often a forward pass calls each named layer, in the order of their last calls."""
    calls: dict[str, int] = {}

    def note(name: str) -> None:
        calls[name] = calls.pop(name, 0) + 1

    handles = [
        model.get_submodule(name).register_forward_pre_hook(lambda _, __, name=name: note(name))
        for name in names
    ]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def layer_inputs(model: nn.Module, name: str, inputs: Tensor, *, calls: int) -> list[Tensor]:
    """Return the inputs of a layer, as `columns` of each call; later layers are not computed."""
    module = model.get_submodule(name)
    seen: list[Tensor] = []

    def see(values: Tensor) -> None:
        seen.append(values)
        if len(seen) == calls:
            raise _Reached

    with suppress(_Reached), tapped(module, see), torch.no_grad():
        model(inputs)
    return seen


def measure(module: nn.Module, pairs: Iterable[tuple[Tensor, Tensor]]) -> Moments:
    """Measure the moments of a layer's inputs.

    Args:
        module: the layer.
        pairs: its inputs in the network whose earlier layers are quantized, and in the float
            network, call by call; both as in :func:`columns`.
    """
    total: Tensor | None = None
    count = 0
    for values, exact in pairs:
        for part, exact_part in zip(_parts(module, values), _parts(module, exact), strict=True):
            found, rows = columns(module, part), columns(module, exact_part)
            products = torch.stack([found.mT @ found, rows.mT @ found])
            total = _added(total, products)
            count += found.shape[1]
    assert total is not None
    return Moments(*(total / count))


def columns(module: nn.Module, values: Tensor) -> Tensor:
    """Return inputs of a layer as float32 (g, R, n): its output is their product with the weight.

    Args:
        module: a linear layer or convolution.
        values: float (…, n) of a linear layer, (B, C, h, w) of a convolution.
    """
    if isinstance(module, nn.Linear):
        return values.reshape(1, -1, module.in_features).float()
    assert isinstance(module, nn.Conv2d)
    padding = module.padding
    if isinstance(padding, str) or module.padding_mode != "zeros":
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        values = F.pad(values, module._reversed_padding_repeated_twice, mode=mode)
        padding = (0, 0)
    patches: Tensor = F.unfold(
        values.float(),
        module.kernel_size,
        dilation=module.dilation,
        padding=padding,
        stride=module.stride,
    )  # (B, C · kernel, positions)
    split = patches.reshape(len(values), module.groups, -1, patches.shape[2])
    return split.permute(1, 0, 3, 2).flatten(1, 2)


def _parts(module: nn.Module, values: Tensor) -> Iterable[Tensor]:
    """Divide inputs so that the unfolded ones fit into memory."""
    if not isinstance(module, nn.Conv2d):
        return (values,)
    kernel = module.kernel_size[0] * module.kernel_size[1]
    per_sample = values[0].numel() * kernel // (module.stride[0] * module.stride[1])
    size = max(1, _MAX_VALUES // max(1, per_sample))
    return [values[start : start + size] for start in range(0, len(values), size)]


def _added(total: Tensor | None, products: Tensor) -> Tensor:
    """Add products to a sum in float64, on the host where the device has none."""
    device = "cpu" if products.device.type == "mps" else products.device
    exact = products.to(device).double()
    return exact if total is None else total.add_(exact)
