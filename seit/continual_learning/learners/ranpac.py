"""RanPAC: ridge regression on random features.

Legend: B batch, C classes of the store, D features, M random features, n samples, b some of them.
"""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from seit.continual_learning.learners.base import Learner, Setting
from seit.continual_learning.streams.tasks import Task

RIDGES = tuple(10.0**power for power in range(-8, 9))
_FITTED_SHARE = 0.8
_CHUNK = 1024
"""Number of samples with random features in memory at a time."""


class Ranpac(Learner):
    """`ranpac`: ridge regression on random features (McDonnell et al., NeurIPS 2023, 2307.02251).

    H = relu(F W) with W ~ N(0, 1) from the run's seed. G = Σ HᵀH and Q = Σ HᵀY accumulate over
    tasks, and the classifier is (G + λI)⁻¹ Q. λ = 10⁻⁸ … 10⁸ is chosen by the error on a fifth of
    the task's samples after fitting the other four; in a stream without tasks, on a fifth of those
    since the last evaluation. The paper's first phase, which tunes the backbone on the first task,
    is left out.
    """

    takes_steps = False
    tunes_backbone = False

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        num_classes, num_features = self.network.head.weight.shape
        size, device = self.config.ranpac.dim, setting.device
        generator = torch.Generator().manual_seed(self.config.run.seed)
        projection = torch.randn(num_features, size, generator=generator, dtype=torch.float64)
        self._projection = projection.to(device)
        self._gram = torch.zeros(size, size, dtype=torch.float64, device=device)
        self._moments = torch.zeros(size, num_classes, dtype=torch.float64, device=device)
        self._weights = torch.zeros_like(self._moments)

    @override
    def end_task(self, task: Task) -> None:
        features, labels = self.features_of(task.rows), self.labels_of(task.rows)
        fitted, left = (part.to(labels.device) for part in fitted_and_left(len(labels)))
        gram, moments = torch.zeros_like(self._gram), torch.zeros_like(self._moments)
        for random_bM, targets_bC in self._parts(features[fitted], labels[fitted]):
            gram += random_bM.T @ random_bM
            moments += random_bM.T @ targets_bC
        ridge = best_ridge(gram, moments, self._parts(features[left], labels[left]))
        for random_bM, targets_bC in self._parts(features[left], labels[left]):
            gram += random_bM.T @ random_bM
            moments += random_bM.T @ targets_bC
        self._gram += gram
        self._moments += moments
        self._weights = ridge_weights(self._gram, self._moments, ridge)
        if self.setting.stream.task_free:
            self.meet(labels.unique().tolist())

    @override
    def answers(self, inputs: Tensor) -> dict[str, Tensor]:
        with self.setting.autocast:
            features = self.network.features(inputs)
        scores = self._randomised(features) @ self._weights
        known = self._moments.any(dim=0)
        return {"model": scores.masked_fill(~known, -torch.inf).float()}

    @override
    def state(self) -> dict[str, Tensor]:
        own = {"gram": self._gram, "moments": self._moments, "weights": self._weights}
        return super().state() | own

    @override
    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        for name, value in (("gram", self._gram), ("moments", self._moments)):
            value.copy_(state[name])
        self._weights = state["weights"].to(self.setting.device)

    @override
    def stored(self) -> dict[str, dict[str, Tensor]]:
        return {
            "random_projection": {"projection": self._projection},
            "statistics": {"gram": self._gram, "moments": self._moments},
            "classifier": {"weights": self._weights},
        }

    def _parts(self, features: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield random features (b, M) and targets (b, C) in chunks of bounded size."""
        for some, own in zip(features.split(_CHUNK), labels.split(_CHUNK), strict=True):
            yield self._randomised(some), F.one_hot(own, len(self.seen)).double()

    def _randomised(self, features: Tensor) -> Tensor:
        return (features.double() @ self._projection).relu()


def ridge_weights(gram_MM: Tensor, moments_MC: Tensor, ridge: float) -> Tensor:
    """Return (G + λI)⁻¹ Q, float64 (M, C)."""
    eye = torch.eye(len(gram_MM), dtype=gram_MM.dtype, device=gram_MM.device)
    solved: Tensor = torch.linalg.solve(gram_MM + ridge * eye, moments_MC)
    return solved


def fitted_and_left(num_samples: int) -> tuple[Tensor, Tensor]:
    """Split samples at random: four fifths to fit a ridge on, the rest to choose it by."""
    generator = torch.Generator().manual_seed(num_samples)
    order = torch.randperm(num_samples, generator=generator)
    fitted = max(1, int(num_samples * _FITTED_SHARE))
    return order[:fitted], order[fitted:]


def best_ridge(gram_MM: Tensor, moments_MC: Tensor, left: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the λ with the least squared error on held-out samples; 1 if there are none.

    A single eigendecomposition of the Gram matrix serves all λ. ``left`` are random features (b, M)
    and targets (b, C) of held-out samples, part by part; all values are float64.
    """
    values, vectors = torch.linalg.eigh(gram_MM)
    rotated_MC = vectors.T @ moments_MC
    errors = torch.zeros(len(RIDGES), dtype=torch.float64)
    for random_bM, targets_bC in left:
        rotated_bM = random_bM @ vectors
        for number, ridge in enumerate(RIDGES):
            weights_MC = rotated_MC / (values.clamp(min=0) + ridge)[:, None]
            errors[number] += (rotated_bM @ weights_MC - targets_bC).square().sum().cpu()
    return RIDGES[int(errors.argmin())] if errors.any() else 1.0
