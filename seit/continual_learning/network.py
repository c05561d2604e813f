"""Network of a continual run: a backbone, its tuning, and a head for all classes.

Legend: B batch, C classes of the store, D features.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from typing_extensions import override

from seit.models import Tuning, keeps_statistics

_HEAD_STD = 0.001
"""Standard deviation of the head's initial weights, as in LAE."""


class Network(nn.Module):
    """Inputs → logits (B, C), with a column for each label.

    One matrix serves all classes, equivalent to LAE's heads of single tasks: classes left out of a
    loss get no gradient, and an optimizer that is reset for each task, without weight decay, leaves
    their rows unchanged.

    Args:
        backbone: backbone without a classifier, as after timm's `reset_classifier(0)`.
        tuning: tuning, not attached yet.
        num_classes: C.
        num_features: D.

    Attributes:
        head: the classifier.
        tuning: how the backbone is trained.
        tuned: its trained modules, by name in the backbone.
    """

    def __init__(
        self, backbone: nn.Module, tuning: Tuning, *, num_classes: int, num_features: int
    ) -> None:
        super().__init__()
        tuning.attach(backbone)
        self.backbone = backbone
        self.tuning = tuning
        self.tuned = tuning.parameters()
        self.head = nn.Linear(num_features, num_classes)
        nn.init.normal_(self.head.weight, std=_HEAD_STD)
        nn.init.zeros_(self.head.bias)

    def features(self, inputs_BChw: Tensor) -> Tensor:
        """Return the features that the head receives, float (B, D)."""
        features: Tensor = self.backbone(inputs_BChw)
        return features

    @override
    def forward(self, inputs_BChw: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(inputs_BChw))
        return logits

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters excluded from weight decay, e.g. position embeddings."""
        return {f"backbone.{name}" for name in getattr(self.backbone, "no_weight_decay", set)()}

    def trained_state(self) -> dict[str, Tensor]:
        """Return everything that training changes: parameters, statistics and averages.

        Norm statistics that a tuning keeps frozen belong to the backbone instead.
        """
        own = {id(parameter) for parameter in (*self.tuned.values(), *self.head.parameters())}
        buffers = {
            id(buffer)
            for module in self.modules()
            for buffer in module.buffers(recurse=False)
            if not (hasattr(module, "running_mean") and keeps_statistics(module))
        }
        return {
            name: value
            for name, value in self.state_dict(keep_vars=True).items()
            if id(value) in own or id(value) in buffers
        }

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore a trained state.

        Raises:
            KeyError: the state is from another network.
        """
        for name, value in self.trained_state().items():
            value.copy_(state[name])

    @property
    def learns_statistics(self) -> bool:
        """True if training changes running statistics of batch norms."""
        return any(
            getattr(module, "running_mean", None) is not None and not keeps_statistics(module)
            for module in self.modules()
        )

    def snapshot(self) -> dict[str, Tensor]:
        """Return a copy of the trained state."""
        return {name: value.detach().clone() for name, value in self.trained_state().items()}

    @contextmanager
    def wearing(self, state: Mapping[str, Tensor]) -> Iterator[None]:
        """Swap in other values for part of the trained state within the context.

        Args:
            state: values by name, as in :meth:`trained_state`.
        """
        live = self.trained_state()
        with torch.no_grad():
            kept = {name: live[name].detach().clone() for name in state}
            for name, value in state.items():
                live[name].copy_(value)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in kept.items():
                    live[name].copy_(value)
