"""Methods that add no modules: all weights, the classifier only, or biases."""

from collections.abc import Collection

from torch import nn
from typing_extensions import override

from seit.errors import UsageError
from seit.models.tuning.base import Addition, Tuning
from seit.models.tuning.blocks import transformer_blocks


class _Plain(Tuning):
    """Method that trains the model's own weights, with nothing to add or to fold."""

    mergeable = True

    @override
    def plan(self, model: nn.Module) -> list[tuple[Addition, nn.Module | nn.Parameter]]:
        return []

    @override
    def fold(self) -> None:
        return None


class Full(_Plain):
    """Full fine-tuning; keeps a copy of all weights while attached."""

    trains_all = True

    @override
    def trained_weights(self, model: nn.Module) -> Collection[str]:
        return {key for key, one in model.named_parameters() if one.requires_grad}


class Linear(_Plain):
    """Training of the classifier only."""


class BitFit(_Plain):
    """Training of all biases, including those of norms and the stem (arXiv 2106.10199).

    Of a speech model, those of its blocks, as in the study on speech (arXiv 2210.06175): gradients
    need not pass through its convolutions.
    """

    @override
    def plan(self, model: nn.Module) -> list[tuple[Addition, nn.Module | nn.Parameter]]:
        if not self.trained_weights(model):
            raise UsageError(
                f"a {type(model).__name__} has no biases that bitfit could train; choose another "
                "method"
            )
        return super().plan(model)

    @override
    def trained_weights(self, model: nn.Module) -> Collection[str]:
        biases = {key for key, _ in model.named_parameters() if key.rpartition(".")[2] == "bias"}
        blocks = [f"{one.name}." for one in transformer_blocks(model) if not one.is_fused]
        return {key for key in biases if not blocks or key.startswith(tuple(blocks))}
