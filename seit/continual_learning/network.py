"""The network of a continual run: a backbone, what is tuned of it, and a head for all classes.

Legend: B batch, C classes of the store, D features.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from typing_extensions import override

from seit.models import Tuning, keeps_statistics

_HEAD_STD = 0.001
"""Of the head's first weights, as in LAE."""


class Network(nn.Module):
    """Inputs → logits (B, C), a class in the place of its label.

    One matrix serves all classes. As LAE's heads of single tasks it is: rows of classes that a loss
    leaves out get no gradient, and an optimiser that begins anew with each task and decays nothing
    leaves them where they are.

    Args:
        backbone: without a classifier, as timm's `reset_classifier(0)` leaves it.
        tuning: not attached yet.
        num_classes: C.
        num_features: D.

    Attributes:
        head: the classifier.
        tuning: how the backbone is trained.
        tuned: what of it is, by its names there.
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
        """What the head sees: float (B, D)."""
        features: Tensor = self.backbone(inputs_BChw)
        return features

    @override
    def forward(self, inputs_BChw: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(inputs_BChw))
        return logits

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that the optimiser does not decay, such as position embeddings."""
        return {f"backbone.{name}" for name in getattr(self.backbone, "no_weight_decay", set)()}

    def trained_state(self) -> dict[str, Tensor]:
        """All that training changes: parameters, and statistics and averages beside them.

        Statistics of norms that a tuning holds still are the backbone's.
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
        """Put a trained state back.

        Raises:
            KeyError: it is another network's.
        """
        for name, value in self.trained_state().items():
            value.copy_(state[name])

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the trained state."""
        return {name: value.detach().clone() for name, value in self.trained_state().items()}

    @contextmanager
    def wearing(self, state: Mapping[str, Tensor]) -> Iterator[None]:
        """Have other values for some of the trained state meanwhile.

        Args:
            state: by the names of :meth:`trained_state`.
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
