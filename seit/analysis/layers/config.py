"""Settings of a layer-wise analysis."""

import math
from dataclasses import dataclass
from typing import Literal

from seit.analysis.layers.cca import RIDGE
from seit.analysis.layers.reduction import MAX_DIM
from seit.errors import UsageError

Method = Literal["cca", "svcca", "r2", "ridge", "lda"]


@dataclass(frozen=True, kw_only=True)
class AnalyzeConfig:
    """Settings of `seit analyze cca` and `seit analyze probe`.

    Raises:
        UsageError: a value is out of range.
    """

    method: Method = "cca"
    """Figure: held-out CCA, the same on the principal components that hold 99 % of the variance
    (SVCCA), variance explained by ridge regression, or the accuracy of a ridge or LDA probe."""
    target: str = "label"
    """label, phone, word, codes, mel, layer:NAME, SUBJECT@LAYER (a layer of another network), or a
    .npy file with a row for each instance."""
    folds: int = 5
    """Folds of cross-validation; no file or group is in two of them."""
    nulls: int = 3
    """Rearrangements of the target that show what chance gives."""
    fewest: int = 20
    """Instances that a class, phone or word needs to be used."""
    most: int = 200
    """Instances of a class, phone or word that are used."""
    seed: int = 0
    """Seed of folds, rearrangements, choice of instances, and random weights."""
    max_dim: int = MAX_DIM
    """Features of a layer above which its principal components are used instead."""
    ridge: float = RIDGE
    """Share of the largest eigenvalue added to covariances in CCA."""
    penalty: float = 1e-3
    """Share of the mean variance added to each feature's in probes and regression."""
    random_twin: bool = True
    """Analyze the same network with random weights as well."""

    def __post_init__(self) -> None:
        for name, low in {"folds": 2, "nulls": 1, "fewest": 2, "most": 2, "max_dim": 2}.items():
            if getattr(self, name) < low:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least {low}")
        if self.method in ("cca", "svcca") and self.penalty != AnalyzeConfig.penalty:
            raise UsageError(f"{self.method} takes no --penalty, which is for probes and r2")
        if self.most < self.fewest:
            raise UsageError(
                f"most is {self.most} and fewest {self.fewest}; fewest must not be larger"
            )
        for name, high in {"ridge": 1.0, "penalty": math.inf}.items():
            if not 0 <= getattr(self, name) < high:
                raise UsageError(
                    f"{name} is {getattr(self, name)}; it must be at least 0 and below {high:g}"
                )
