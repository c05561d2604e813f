"""iCaRL (Rebuffi et al., CVPR 2017, arXiv 1611.07725).

Samples of a task and of the memory are trained on together, with a sigmoid and binary cross-entropy
per class: targets are labels for the task's classes and the previous network's outputs for earlier
ones. Exemplars are chosen by herding, and a sample gets the class with the nearest mean of exemplar
features.

Legend: B batch, C classes of the store, D features, n samples.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from seit.continual_learning.learners.base import Setting, StepBatch
from seit.continual_learning.learners.rehearsal import Rehearsal
from seit.continual_learning.streams.tasks import Task

_BEFORE = "before."
_CHUNK = 256


class Icarl(Rehearsal):
    """`icarl`, classifying by the nearest mean of exemplars (iCaRL-NME)."""

    policy = "herding"
    masks = None
    needs_tasks = True
    needs_new_classes = True

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._before: dict[str, Tensor] = {}
        self._known = self.seen.clone()
        self._means: Tensor | None = None

    @override
    def begin_task(self, task: Task) -> None:
        self._known.copy_(self.seen)
        self._before = self.network.snapshot() if bool(self._known.any()) else {}
        super().begin_task(task)
        self._means = None

    @override
    def loss(self, batch: StepBatch) -> Tensor:
        kept = self.replay(batch)
        inputs, labels = batch.inputs, batch.labels
        if kept is not None:
            inputs, labels = torch.cat([inputs, kept.inputs]), torch.cat([labels, kept.labels])
        num_new = len(batch.labels)
        targets = F.one_hot(labels, len(self.seen)).float()
        if self._before:
            targets = torch.where(self._known, self._told(inputs), targets)
        losses = F.binary_cross_entropy_with_logits(self.logits(inputs), targets, reduction="none")
        losses_b = losses[:, self.seen].sum(dim=1)
        new = batch.weight * losses_b[:num_new].mean()
        if kept is None:
            return new
        return self.mixed(batch, new, kept, kept.weight * losses_b[num_new:].mean())

    @override
    def end_task(self, task: Task) -> None:
        for label in task.classes:
            rows = task.rows[self.setting.labels[task.rows] == label]
            features = F.normalize(self.features_of(rows), dim=1)
            order = herding_order(features)
            self.setting.ranks.adopt([order])
            self.memory.replace_class(label, rows[order.cpu().numpy()])
        self._means = None

    @override
    def answers(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return minus the squared distance to each class mean, both L2-normalized."""
        if self._means is None:
            self._means = self._mean_features()
        with self.setting.autocast:
            features = self.network.features(inputs)
        features = F.normalize(features.float(), dim=1)
        distances = torch.cdist(features, self._means).square()
        return {"model": torch.where(self._means.isfinite().all(1), -distances, -torch.inf)}

    @override
    def state(self) -> dict[str, Tensor]:
        before = {f"{_BEFORE}{key}": value for key, value in self._before.items()}
        return super().state() | {"known": self._known} | before

    @override
    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        self._known.copy_(state["known"])
        self._before = {
            key.removeprefix(_BEFORE): value.to(self.setting.device)
            for key, value in state.items()
            if key.startswith(_BEFORE)
        }
        self._means = None

    @override
    def stored(self) -> dict[str, dict[str, Tensor]]:
        """Include the previous network, although only the steps of a task need it."""
        return {"earlier_network": self._before}

    def _told(self, inputs: Tensor) -> Tensor:
        """Return the previous network's outputs without dropout: 0–1, (B, C)."""
        self.network.eval()
        with torch.no_grad(), self.network.wearing(self._before):
            told = self.logits(inputs).sigmoid()
        self.network.train()
        return told

    def _mean_features(self) -> Tensor:
        """Return the L2-normalized mean feature of each class's exemplars, (C, D); NaN if none."""
        labels = torch.from_numpy(self.memory.labels).to(self.setting.device)
        parts = [self.network.head.weight.new_empty(0, self.network.head.in_features)]
        with torch.no_grad(), self.setting.autocast:
            for start in range(0, len(labels), _CHUNK):
                tokens = torch.from_numpy(self.memory.tokens[start : start + _CHUNK])
                inputs = self.setting.augment.evaluate(tokens.to(self.setting.device))
                parts.append(self.network.features(inputs).float())
        features = F.normalize(torch.cat(parts), dim=1)
        sums = features.new_zeros(len(self.seen), features.shape[1]).index_add_(0, labels, features)
        counts = torch.bincount(labels, minlength=len(self.seen))
        means = F.normalize(sums / counts[:, None].clamp(min=1), dim=1)
        return means.masked_fill((counts == 0)[:, None], torch.nan)


def herding_order(features_nD: Tensor) -> Tensor:
    """Return rows in herding order, int64 (n,).

    Each step takes the row that brings the mean of the rows taken closest to the overall mean
    (algorithm 4 of iCaRL; Welling, ICML 2009).
    """
    rows = features_nD.double()
    mean, total = rows.mean(dim=0), torch.zeros_like(rows[0])
    free = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    order = np.empty(len(rows), dtype=np.int64)
    for taken in range(len(rows)):
        # argmin |μ − (S + φ)/k|² over φ, without terms independent of φ
        score = rows.square().sum(1) - 2 * rows @ ((taken + 1) * mean - total)
        index = int(torch.where(free, score, torch.inf).argmin())
        free[index] = False
        total = total + rows[index]
        order[taken] = index
    return torch.from_numpy(order).to(features_nD.device)
