"""Learners without steps: class means.

The backbone stays frozen. Every training sample is read once, without augmentation, and only sums
are kept, to which later tasks add. Nothing is forgotten, and the order of tasks is irrelevant.

Legend: B batch, C classes of the store, D features.
"""

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from seit.continual_learning.learners.base import Learner, Setting
from seit.continual_learning.streams.tasks import Task

_CHUNK = 1024
"""Number of samples with float64 features in memory at a time."""


class Prototypes(Learner):
    """Class means, compared with samples by :meth:`scores`."""

    takes_steps = False
    tunes_backbone = False

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        num_classes, num_features = self.network.head.weight.shape
        device = setting.device
        self._sums = torch.zeros(num_classes, num_features, dtype=torch.float64, device=device)
        self._counts = torch.zeros(num_classes, dtype=torch.float64, device=device)

    @override
    def end_task(self, task: Task) -> None:
        labels = self.labels_of(task.rows)
        parts = zip(self.features_of(task.rows).split(_CHUNK), labels.split(_CHUNK), strict=True)
        for features, own in parts:
            self._sums.index_add_(0, own, features.double())
            self._counts.index_add_(0, own, torch.ones_like(own, dtype=torch.float64))
        if self.setting.stream.task_free:
            self.seen |= self._counts > 0

    @override
    def answers(self, inputs: Tensor) -> dict[str, Tensor]:
        with self.setting.autocast:
            features = self.network.features(inputs)
        scores = self.scores(features.double(), self._sums / self._counts[:, None].clamp(min=1))
        return {"model": scores.masked_fill(self._counts == 0, -torch.inf).float()}

    @abstractmethod
    def scores(self, features_BD: Tensor, means_CD: Tensor) -> Tensor:
        """Return the scores (B, C) of features, float64, higher for a closer mean."""

    @override
    def state(self) -> dict[str, Tensor]:
        return super().state() | {"sums": self._sums, "counts": self._counts}

    @override
    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        self._sums.copy_(state["sums"])
        self._counts.copy_(state["counts"])

    @override
    def stored(self) -> dict[str, dict[str, Tensor]]:
        return {"prototypes": {"sums": self._sums, "counts": self._counts}}


class NearestMean(Prototypes):
    """`ncm`: predicts the class mean with the smallest squared Euclidean distance."""

    @override
    def scores(self, features_BD: Tensor, means_CD: Tensor) -> Tensor:
        return -torch.cdist(features_BD, means_CD).square()


class SimpleCil(Prototypes):
    """`simplecil`: predicts the class mean with the largest cosine (arXiv 2303.07338)."""

    @override
    def scores(self, features_BD: Tensor, means_CD: Tensor) -> Tensor:
        return F.normalize(features_BD, dim=1) @ F.normalize(means_CD, dim=1).T
