"""Methods that add nothing: all weights, the classifier alone, or biases."""

from collections.abc import Collection

from torch import nn
from typing_extensions import override

from seit.errors import UsageError
from seit.models.tuning.base import Addition, Tuning


class _Plain(Tuning):
    """A method whose weights are the model's own, so that there is nothing to add or to fold."""

    mergeable = True

    @override
    def plan(self, model: nn.Module) -> list[tuple[Addition, nn.Module | nn.Parameter]]:
        return []

    @override
    def fold(self) -> None:
        return None


class Full(_Plain):
    """Everything is trained; a copy of all weights is kept as long as it is attached."""

    trains_all = True

    @override
    def trained_weights(self, model: nn.Module) -> Collection[str]:
        return {key for key, one in model.named_parameters() if one.requires_grad}


class Linear(_Plain):
    """The classifier alone is trained."""


class BitFit(_Plain):
    """All biases are trained, those of norms and of the stem among them (arXiv 2106.10199)."""

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
        return {key for key, _ in model.named_parameters() if key.rpartition(".")[2] == "bias"}
