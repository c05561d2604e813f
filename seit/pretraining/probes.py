"""Probes of features during pretraining: k-NN, a linear probe, and feature spread.

Labels are used for these figures alone. Probes keep no state, hence need no checkpoint: each
evaluation fits them from scratch on features of the same samples.

Legend: N features to learn from, M features to test, D model dim, k neighbors, c classes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from seit.augment import TokenAugment
from seit.errors import UsageError
from seit.shards import Split, Store
from seit.training import LoopConfig, Ranks, evaluated_split, training_rows

_BATCH = 256
_ITERATIONS = 100
_Features = Callable[[Tensor], Tensor]
"""Inputs (B, C, h, w) → features (B, D)."""


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Measurements of features at each evaluation; raises UsageError for invalid values."""

    samples: int = 4096
    """Maximum number of labeled training samples for probes, evenly spaced among those in use; 0
    disables both accuracies."""
    val_samples: int = 2048
    """Maximum number of evaluated samples to test probes on; at least 2."""
    neighbours: int = 20
    """Number k of nearest neighbors."""
    temperature: float = 0.07
    """Temperature: divides cosines before neighbors vote by their exponentials."""
    penalty: float = 1e-4
    """Weight decay of the linear probe: half of it times the squared weights is added to the mean
    loss."""
    gradients: bool = True
    """For SiT with several tasks, measure the norm of the encoder's gradient of each task's
    weighted loss on the last batch, to show which dominates; costs about two steps."""

    def __post_init__(self) -> None:
        for name, low in (("samples", 0), ("val_samples", 2), ("neighbours", 1)):
            if getattr(self, name) < low:
                raise UsageError(f"probe.{name} is {getattr(self, name)}; expected at least {low}")
        for name in ("temperature", "penalty"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(
                    f"probe.{name} is {getattr(self, name)}; expected above 0 and finite"
                )


class Probes:
    """Measures an encoder's features of a store's samples.

    Without labels in both splits only the spread of features is measured, and without an evaluated
    split on training samples. Training samples are those that `data.fraction` keeps. Each rank
    reads its part of the samples.
    """

    def __init__(
        self,
        store: Store,
        config: LoopConfig,
        probe: ProbeConfig,
        augment: TokenAugment,
        ranks: Ranks,
    ) -> None:
        self.config = probe
        self._augment = augment
        self._ranks = ranks
        train = store[config.data.train_split]
        evaluated = evaluated_split(store, config)
        has_val = evaluated is not None
        self._tested = train if evaluated is None else evaluated
        self._learned = train
        test_labels = self._tested.labels
        rows = training_rows(train, config)
        rows = np.arange(len(train)) if rows is None else rows
        tested = np.arange(len(self._tested)) if has_val else rows
        train_rows = _spread(rows[train.labels[rows] >= 0], probe.samples)
        test_rows = _spread(tested[test_labels[tested] >= 0], probe.val_samples)
        self._has_labels = has_val and len(train_rows) > 1 and len(test_rows) > 0
        if not self._has_labels:
            train_rows = train_rows[:0]
            test_rows = _spread(tested, probe.val_samples)
        self._train_rows, self._test_rows = train_rows, test_rows
        device = ranks.device
        self._train_labels = torch.from_numpy(train.labels[train_rows].astype(np.int64)).to(device)
        self._test_labels = torch.from_numpy(test_labels[test_rows].astype(np.int64)).to(device)

    def measure(self, features: _Features) -> dict[str, float]:
        """Return metrics by name, equal on all ranks; call in evaluation mode, without gradients.

        Always ``feature_std`` and ``effective_rank``; with labels also ``knn_top1``,
        ``linear_top1`` and ``chance``, the share of the most frequent class.
        """
        tested_MD = self._extract(self._tested, self._test_rows, features)
        figures = {
            "feature_std": feature_std(tested_MD),
            "effective_rank": effective_rank(tested_MD),
        }
        if not self._has_labels:
            return figures
        learned_ND = self._extract(self._learned, self._train_rows, features)
        voted = knn_predict(
            learned_ND,
            self._train_labels,
            tested_MD,
            k=self.config.neighbours,
            temperature=self.config.temperature,
        )
        told = linear_predict(
            learned_ND, self._train_labels, tested_MD, penalty=self.config.penalty
        )
        return {
            **figures,
            "knn_top1": float((voted == self._test_labels).double().mean()),
            "linear_top1": float((told == self._test_labels).double().mean()),
            "chance": int(self._test_labels.bincount().max()) / len(self._test_labels),
        }

    def _extract(self, split: Split, rows: npt.NDArray[np.int64], features: _Features) -> Tensor:
        """Return features (n, D) float32 of rows of a split, gathered from all ranks."""
        rank, size = self._ranks.rank, self._ranks.world_size
        own = rows[len(rows) * rank // size : len(rows) * (rank + 1) // size]
        parts = [features(inputs).float() for inputs in self._inputs(split, own)]
        if not parts:  # to get the shape of an empty result
            parts = [features(inputs)[:0].float() for inputs in self._inputs(split, rows[:1])]
        return self._ranks.join(torch.cat(parts))

    def _inputs(self, split: Split, rows: npt.NDArray[np.int64]) -> Iterator[Tensor]:
        for start in range(0, len(rows), _BATCH):
            tokens = split.tokens[rows[start : start + _BATCH]].astype(np.int64)
            yield self._augment.evaluate(torch.from_numpy(tokens).to(self._ranks.device))


def _spread(rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Return at most ``count`` of the rows, evenly spaced."""
    if len(rows) <= count:
        return rows
    return rows[np.arange(count) * len(rows) // max(1, count)]


def knn_predict(
    learned_ND: Tensor, labels_N: Tensor, tested_MD: Tensor, *, k: int, temperature: float
) -> Tensor:
    """Return the class predicted by each feature's nearest neighbors.

    Neighbors by cosine, with votes weighted by exp(cosine / ``temperature``) (Wu et al., arXiv
    1805.01978).

    Args:
        learned_ND: (N, D) floating point.
        labels_N: (N,) int64, 0 or more.
        tested_MD: (M, D).
        k: number of neighbors, at most N are used.
        temperature: above 0.

    Returns:
        (M,) int64.
    """
    learned = F.normalize(learned_ND, dim=1)
    votes = []
    for part in F.normalize(tested_MD, dim=1).split(_BATCH):
        nearest = (part @ learned.T).topk(min(k, len(learned)), dim=1)
        # Weights relative to the nearest neighbor's, as exponentials of large quotients overflow.
        weights = ((nearest.values - nearest.values[:, :1]) / temperature).exp()
        scores = weights.new_zeros(len(part), int(labels_N.max()) + 1)
        votes.append(scores.scatter_add_(1, labels_N[nearest.indices], weights).argmax(dim=1))
    return torch.cat(votes)


def linear_predict(
    learned_ND: Tensor, labels_N: Tensor, tested_MD: Tensor, *, penalty: float
) -> Tensor:
    """Return the class predicted by a linear probe for each feature.

    Multinomial logistic regression on standardized features, fitted by L-BFGS in float64, so that
    it is deterministic. If there are more classes than samples, those without a sample get no
    weights.

    Args:
        learned_ND: (N, D) floating point.
        labels_N: (N,) int64, 0 or more.
        tested_MD: (M, D).
        penalty: half of it times the squared weights is added to the mean loss.

    Returns:
        (M,) int64.
    """
    mean_D, std_D = learned_ND.double().mean(0), learned_ND.double().std(0)
    scale_D = torch.where(std_D > 0, std_D, 1.0)

    def scaled(x: Tensor) -> Tensor:
        return (x.double() - mean_D) / scale_D

    known, fitted = None, labels_N
    if int(labels_N.max()) >= len(labels_N):
        known, fitted = labels_N.unique(return_inverse=True)
    weights_Dc, bias_c = fit_linear(scaled(learned_ND), fitted, penalty=penalty)
    named: Tensor = (scaled(tested_MD) @ weights_Dc + bias_c).argmax(dim=1)
    return named if known is None else known[named]


def fit_linear(x_ND: Tensor, labels_N: Tensor, *, penalty: float) -> tuple[Tensor, Tensor]:
    """Fit logistic regression; return weights (D, c) and biases (c,). See `linear_predict`."""
    classes = int(labels_N.max()) + 1
    # Features may be inference tensors, which autograd rejects; their copies are not.
    with torch.inference_mode(False), torch.enable_grad():
        x, labels = x_ND.clone(), labels_N.clone()
        weights = torch.zeros(x.shape[1], classes, dtype=x.dtype, device=x.device)
        bias = torch.zeros(classes, dtype=x.dtype, device=x.device)
        fitted = [weights.requires_grad_(), bias.requires_grad_()]
        optimizer = torch.optim.LBFGS(
            fitted,
            max_iter=_ITERATIONS,
            history_size=10,
            tolerance_grad=1e-7,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(x @ weights + bias, labels)
            value = value + penalty / 2 * weights.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
    return weights.detach(), bias.detach()


def feature_std(features_MD: Tensor) -> float:
    """Return the spread of unit-length features: about 1 in all directions, 0 if collapsed.

    Standard deviation per dimension over the samples, averaged, times √D (Chen and He, arXiv
    2011.10566, section 4.1).
    """
    unit = F.normalize(features_MD.double(), dim=1)
    return float(unit.std(dim=0, correction=0).mean()) * math.sqrt(features_MD.shape[1])


def effective_rank(features_MD: Tensor) -> float:
    """Return the effective number of directions of features: 1 to min(M, D).

    The exponential of the entropy of the normalized singular values (Roy and Vetterli 2007; RankMe,
    arXiv 2210.02885), after centering, as the mean would count as a direction. NaN if a feature is
    not finite.
    """
    if not features_MD.isfinite().all():
        return math.nan
    centred = features_MD.double() - features_MD.double().mean(dim=0)
    values = torch.linalg.svdvals(centred)
    total = float(values.sum())
    if total <= 1e-12 * max(1.0, float(features_MD.abs().max())):
        return 1.0
    shares = values / total
    return math.exp(float(torch.special.entr(shares).sum()))
