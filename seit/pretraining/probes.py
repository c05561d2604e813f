"""Probes of features while they are learned: k-NN, a linear probe, how they spread.

Labels serve these figures alone. Nothing is learned along the way, so probes have no state that a
checkpoint would need: each evaluation fits them anew to features of the same samples.

Legend: N features to learn from, M features to test, D model dim, k neighbours, c classes.
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
from seit.training import LoopConfig, Ranks

_BATCH = 256
_ITERATIONS = 100
_Features = Callable[[Tensor], Tensor]
"""Inputs (B, C, h, w) → features (B, D)."""


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Measurements of the features at each evaluation.

    Raises:
        UsageError: for a value outside its range.
    """

    samples: int = 4096
    """Labelled training samples that probes learn from, at most, spread evenly over the split; 0
    measures neither accuracy."""
    val_samples: int = 2048
    """Samples of the evaluated split that they are tested on, at most; at least 2."""
    neighbours: int = 20
    """k of the nearest neighbours."""
    temperature: float = 0.07
    """Temperature: divides cosines before neighbors vote by their exponentials."""
    penalty: float = 1e-4
    """Weight decay of the linear probe: half of it times the squared weights is added to the mean
    loss."""
    gradients: bool = True
    """Measure, of several tasks of SiT, the norm of the encoder's gradient of each one's weighted
    loss on the last batch, which costs about two steps; shows which of them leads."""

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

    Args:
        store: with a training split; without labels there, or in the evaluated split, only the
            spread of features is measured, and without that split on training samples.
        config: which splits.
        probe: what is measured.
        augment: gives the middle of every grid, embedded.
        ranks: each of which reads its part of the samples.
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
        has_val = config.data.val_split in store and len(store[config.data.val_split]) > 0
        self._tested = store[config.data.val_split] if has_val else train
        self._learned = train
        test_labels = self._tested.labels
        train_rows = _spread(np.flatnonzero(train.labels >= 0), probe.samples)
        test_rows = _spread(np.flatnonzero(test_labels >= 0), probe.val_samples)
        self._has_labels = has_val and len(train_rows) > 1 and len(test_rows) > 0
        if not self._has_labels:
            train_rows = train_rows[:0]
            test_rows = _spread(np.arange(len(self._tested)), probe.val_samples)
        self._train_rows, self._test_rows = train_rows, test_rows
        device = ranks.device
        self._train_labels = torch.from_numpy(train.labels[train_rows].astype(np.int64)).to(device)
        self._test_labels = torch.from_numpy(test_labels[test_rows].astype(np.int64)).to(device)

    def measure(self, features: _Features) -> dict[str, float]:
        """Figures by name, equal on all ranks; call it in evaluation mode, without gradients.

        ``feature_std`` and ``effective_rank`` always; ``knn_top1``, ``linear_top1`` and ``chance``,
        the share of the most frequent class, where there are labels.
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
        """Features (n, D) float32 of rows of a split, of all ranks."""
        rank, size = self._ranks.rank, self._ranks.world_size
        own = rows[len(rows) * rank // size : len(rows) * (rank + 1) // size]
        parts = [features(inputs).float() for inputs in self._inputs(split, own)]
        if not parts:  # the shape of nothing
            parts = [features(inputs)[:0].float() for inputs in self._inputs(split, rows[:1])]
        return self._ranks.join(torch.cat(parts))

    def _inputs(self, split: Split, rows: npt.NDArray[np.int64]) -> Iterator[Tensor]:
        for start in range(0, len(rows), _BATCH):
            tokens = split.tokens[rows[start : start + _BATCH]].astype(np.int64)
            yield self._augment.evaluate(torch.from_numpy(tokens).to(self._ranks.device))


def _spread(rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """At most ``count`` of the rows, at even distances."""
    if len(rows) <= count:
        return rows
    return rows[np.arange(count) * len(rows) // max(1, count)]


def knn_predict(
    learned_ND: Tensor, labels_N: Tensor, tested_MD: Tensor, *, k: int, temperature: float
) -> Tensor:
    """The class that each feature's nearest neighbours vote for.

    Neighbours by cosine, each vote weighing exp(cosine / ``temperature``) (Wu et al., arXiv
    1805.01978).

    Args:
        learned_ND: (N, D) floating point.
        labels_N: (N,) int64, 0 or more.
        tested_MD: (M, D).
        k: neighbours; all N where there are fewer.
        temperature: above 0.

    Returns:
        (M,) int64.
    """
    learned = F.normalize(learned_ND, dim=1)
    votes = []
    for part in F.normalize(tested_MD, dim=1).split(_BATCH):
        nearest = (part @ learned.T).topk(min(k, len(learned)), dim=1)
        # Weights relative to the best neighbour's: exponentials of large quotients overflow.
        weights = ((nearest.values - nearest.values[:, :1]) / temperature).exp()
        scores = weights.new_zeros(len(part), int(labels_N.max()) + 1)
        votes.append(scores.scatter_add_(1, labels_N[nearest.indices], weights).argmax(dim=1))
    return torch.cat(votes)


def linear_predict(
    learned_ND: Tensor, labels_N: Tensor, tested_MD: Tensor, *, penalty: float
) -> Tensor:
    """The class that a linear probe gives each feature.

    Multinomial logistic regression on features of mean 0 and deviation 1, fitted by L-BFGS in
    float64, so that the same features give the same probe. Where there are more classes than
    features, those without a feature get no weights.

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
    """Weights (D, c) and biases (c,) of logistic regression; arguments as of `linear_predict`."""
    classes = int(labels_N.max()) + 1
    # Features may have been made without gradients for good; copies of them may take part.
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
    """Return how evenly features of unit length spread: about 1 in all directions, 0 if collapsed.

    The deviation of each dimension over the samples, averaged, times √D (Chen and He, arXiv
    2011.10566, section 4.1).
    """
    unit = F.normalize(features_MD.double(), dim=1)
    return float(unit.std(dim=0, correction=0).mean()) * math.sqrt(features_MD.shape[1])


def effective_rank(features_MD: Tensor) -> float:
    """Over how many directions features spread: 1 to min(M, D).

    The exponential of the entropy of the singular values, as shares of their sum (Roy and Vetterli
    2007; RankMe, arXiv 2210.02885). The mean is taken off first, which would count as one. NaN
    where a feature is not finite.
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
