"""Masks of weights, and the criteria by which they are chosen.

Legend: O output channels, I inputs, B batch.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from seit.compression.pruning.choice import Scope
from seit.compression.subject import Subject
from seit.compression.weights.layers import Layer


class Mask(nn.Module):
    """Mask of a weight (O, …): what it derives is zero where ``kept`` is False.

    Attributes:
        scope: what its scores are compared within.
        learns: whether scores are learned, so that there are none before training.
        kept: bool, of the weight's shape.
    """

    scope: ClassVar[Scope]
    learns: ClassVar[bool] = False
    kept: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", torch.ones_like(weight, dtype=torch.bool))

    @classmethod
    def of_layers(cls, subject: Subject, layers: Sequence[Layer]) -> dict[str, Self]:
        """Return masks of layers that keep everything, by name."""
        del subject
        return {layer.name: cls(layer.module.weight) for layer in layers}

    @override
    def forward(self, weight: Tensor) -> Tensor:
        """Return the masked weight."""
        return torch.where(self.kept, weight, 0)

    @abstractmethod
    def scores(self, weight: Tensor) -> Tensor:
        """Return the scores of a weight, of its shape; the highest are kept."""

    def choices(self, weight: Tensor) -> Tensor:
        """Return the scores to choose by: what is removed does not return."""
        return torch.where(self.kept, self.scores(weight), -torch.inf)

    def keep(self, kept: Tensor) -> None:
        """Remove all weights but those where ``kept``, bool of the weight's shape, is True."""
        self.kept &= kept

    def observe(self, weight: nn.Parameter, *, taken: Tensor) -> None:
        """Take note of the gradient of a weight, after an update.

        Args:
            weight: the weight, with its gradient.
            taken: bool (), False for an update that was skipped, as gradients overflowed.
        """


class MagnitudeMask(Mask):
    """Largest weights of the network."""

    scope = "network"

    @override
    def scores(self, weight: Tensor) -> Tensor:
        return weight.abs()


class TaylorMask(Mask):
    """Weights whose removal changes the loss most, to first order: |∂L/∂w · w|.

    Molchanov et al., Importance estimation for neural network pruning (arXiv 1906.10771), averaged
    over batches of calibration, by their samples, and then of training.
    """

    scope = "network"
    importance: Tensor
    _RATE = 0.1

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight)
        self.register_buffer("importance", torch.zeros_like(weight, requires_grad=False))

    @classmethod
    @override
    def of_layers(cls, subject: Subject, layers: Sequence[Layer]) -> dict[str, Self]:
        masks = super().of_layers(subject, layers)
        weights = [layer.module.weight for layer in layers]
        samples = 0
        for inputs, labels in subject.labeled_inputs(subject.calibration_rows):
            with torch.enable_grad():
                loss = F.cross_entropy(subject.model(inputs).float(), labels)
                gradients = torch.autograd.grad(loss, weights)
            samples += len(labels)
            share = len(labels) / samples
            for mask, weight, gradient in zip(masks.values(), weights, gradients, strict=True):
                mask.importance.lerp_((gradient * weight.detach()).abs(), share)
        return masks

    @override
    def scores(self, weight: Tensor) -> Tensor:
        return self.importance

    @override
    @torch.no_grad()
    def observe(self, weight: nn.Parameter, *, taken: Tensor) -> None:
        if weight.grad is not None:
            now = torch.where(taken, (weight.grad * weight).abs(), self.importance)
            self.importance.lerp_(now, self._RATE)


class WandaMask(Mask):
    """Weights times the norm of their inputs, within an output: |w| · ‖x‖₂.

    Sun et al., A simple and effective pruning approach for large language models (arXiv
    2306.11695).
    """

    scope = "row"
    norms: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight)
        self.register_buffer("norms", torch.ones_like(weight[:1], requires_grad=False))

    @classmethod
    @override
    def of_layers(cls, subject: Subject, layers: Sequence[Layer]) -> dict[str, Self]:
        masks = super().of_layers(subject, layers)
        sums: dict[str, Tensor] = {}
        handles = [
            layer.module.register_forward_pre_hook(_squares(sums, layer)) for layer in layers
        ]
        with torch.inference_mode():
            for inputs in subject.inputs(subject.calibration_rows):
                subject.model(inputs)
        for handle in handles:
            handle.remove()
        for name, total in sums.items():
            masks[name].norms.copy_(total.sqrt().reshape(masks[name].norms.shape))
        return masks

    @override
    def scores(self, weight: Tensor) -> Tensor:
        return weight.abs() * self.norms


def _squares(sums: dict[str, Tensor], layer: Layer) -> Callable[[nn.Module, Any], None]:
    """Return a hook that sums the squares of each input of a layer, (I,) or (I · kernel,)."""

    def add(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        rows = args[0].detach().float()
        if isinstance(module, nn.Conv2d):
            found = _squares_of_patches(rows, module)
        else:
            found = rows.flatten(0, -2).square().sum(0)
        sums[layer.name] = sums.get(layer.name, 0) + found.clone()

    return add


def _squares_of_patches(inputs: Tensor, layer: nn.Conv2d) -> Tensor:
    """Return the sum of squares of each place of a kernel, (I · kernel,), over all outputs.

    Groups of channels share the mean over groups.
    """
    patches = F.unfold(
        inputs.square(), layer.kernel_size, layer.dilation, _padding(layer), layer.stride
    )
    sums = patches.sum((0, 2)).reshape(layer.groups, -1)
    return sums.mean(0)


def _padding(layer: nn.Conv2d) -> tuple[int, ...]:
    return (0, 0) if isinstance(layer.padding, str) else tuple(map(int, layer.padding))


class _Moving(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, weight: Tensor, scores: Tensor, kept: Tensor) -> Tensor:
        ctx.save_for_backward(weight, kept)
        return torch.where(kept, weight, 0)

    @staticmethod
    @override
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (weight, kept) = gradients, ctx.saved_tensors
        return torch.where(kept, gradient, 0), (gradient * weight).flatten(), None


class MovementMask(Mask):
    """Weights that grow away from zero in training.

    Sanh et al., Movement pruning (arXiv 2005.07683): scores are parameters, whose straight-through
    gradient is ∂L/∂w′ · w for the masked weight w′. Removed weights keep their values, and return
    once their scores are high enough.
    """

    scope = "layer"
    learns = True

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight)
        self.flat_scores = nn.Parameter(torch.zeros(weight.numel()))  # 1-d: no weight decay

    @override
    def forward(self, weight: Tensor) -> Tensor:
        masked: Tensor = _Moving.apply(weight, self.flat_scores, self.kept)
        return masked

    @override
    def scores(self, weight: Tensor) -> Tensor:
        return self.flat_scores.detach().reshape(weight.shape)

    @override
    def choices(self, weight: Tensor) -> Tensor:
        return self.scores(weight)

    @override
    def keep(self, kept: Tensor) -> None:
        self.kept.copy_(kept)


CRITERIA: Mapping[str, type[Mask]] = {
    "auto": MagnitudeMask,
    "magnitude": MagnitudeMask,
    "taylor": TaylorMask,
    "wanda": WandaMask,
    "movement": MovementMask,
}
"""Criteria of single weights, by name."""
