"""Settings of a tuning run."""

import math
from dataclasses import dataclass, field

from typing_extensions import override

from seit.errors import UsageError
from seit.models import TUNINGS, Tuning, TuningConfig
from seit.training.config import EmaConfig, OptimConfig, TrainConfig, require_setting


@dataclass(frozen=True, kw_only=True)
class TuneOptimConfig(OptimConfig):
    """Optimizer settings, with a separate learning rate for full fine-tuning."""

    full_lr: float | None = None
    """Learning rate of the method `full`, which needs a lower one than methods that train few
    weights; None for `lr`."""


@dataclass(frozen=True, kw_only=True)
class TuneConfig(TrainConfig):
    """Settings of `seit tune`, a run that tunes a pretrained backbone.

    Raises:
        UsageError: values do not fit together.
    """

    tuning: TuningConfig = field(default_factory=TuningConfig)
    """Tuning method and its sizes."""
    optim: TuneOptimConfig = field(default_factory=TuneOptimConfig)
    """Optimizer."""
    ema: EmaConfig = field(default_factory=lambda: EmaConfig(decay=0.0))
    """Average of the weights; none by default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        full_lr = self.optim.full_lr
        require_setting(full_lr is None or 0 < full_lr < math.inf, "optim.full_lr", self, "above 0")
        if self.sparsity.share:
            raise UsageError(
                f"sparsity.share is {self.sparsity.share}, but seit tune holds no weights at zero; "
                "set it to 0"
            )
        if self.ema.decay and self.tuning_class.drops_ranks:
            raise UsageError(
                f"ema.decay is {self.ema.decay}, but an average would keep the ranks that "
                f"{self.tuning.method} takes away; set it to 0"
            )

    @property
    def tuning_class(self) -> type[Tuning]:
        """Class of the method, whose attributes are facts about it."""
        return TUNINGS[self.tuning.method]

    @override
    def reinterpreted(self, revision: int) -> list[str]:
        """Return the settings whose meaning has changed, including the method's."""
        own = self.tuning_class.reinterpreted(self.tuning) if revision < 2 else []
        return [*super().reinterpreted(revision), *own]

    @property
    @override
    def peak_lr(self) -> float:
        full_lr, peak = self.optim.full_lr, super().peak_lr
        if full_lr is None or not self.tuning_class.trains_all:
            return peak
        return peak * full_lr / self.optim.lr
