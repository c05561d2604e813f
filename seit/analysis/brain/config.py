"""Settings of brain scores."""

import math
from dataclasses import dataclass
from typing import Literal

from seit.errors import UsageError

Response = Literal["glover", "delays"]


@dataclass(frozen=True, kw_only=True)
class BrainConfig:
    """Settings of `seit analyze brain`.

    Raises:
        UsageError: a value is out of range.
    """

    tr: float
    """Seconds between samples of the responses."""
    response: Response = "glover"
    """Way in which responses follow the stimulus: by Glover's response of blood flow, or by free
    weights for each of the last samples (FIR), which also suits ECoG and EEG."""
    delays: int = 8
    """Samples with weights of their own, for the response ``delays``."""
    onset: float = 0.0
    """Seconds from the first sample of a run to the start of its stimulus."""
    trim: int = 0
    """Samples dropped at either end of each run."""
    folds: int = 5
    """Folds of a single run; of several, each is one."""
    gap: float = 12.0
    """Seconds left out on either side of the tested stretch of a single run."""
    nulls: int = 20
    """Circular shifts of the features that show what chance gives."""
    shift: float = 20.0
    """Least shift, in seconds."""
    max_dim: int = 256
    """Features of a layer, before delays, above which its principal components are used."""
    seed: int = 0
    """Seed of shifts and random weights."""
    random_twin: bool = True
    """Score the same network with random weights as well."""

    def __post_init__(self) -> None:
        if not 0 < self.tr < math.inf:
            raise UsageError(f"tr is {self.tr}; it must be above 0 seconds")
        least = {"delays": 1, "trim": 0, "folds": 2, "gap": 0, "nulls": 1, "shift": 0, "max_dim": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least {low}")
        for name in ("onset", "gap", "shift"):
            if not math.isfinite(getattr(self, name)):
                raise UsageError(f"{name} is {getattr(self, name)}; it must be finite")
