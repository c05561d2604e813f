"""Settings of a compression run."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from seit.training import EmaConfig, TrainConfig, require_setting

MethodName = Literal["w8", "w4", "w3", "w2"]
METHOD_NAMES: tuple[MethodName, ...] = get_args(MethodName)


@dataclass(frozen=True, kw_only=True)
class CompressionConfig:
    """Method and its sizes."""

    method: MethodName = "w4"
    """Method: w8, w4, w3 and w2 store weights in as many bits."""
    group: int = 0
    """Inputs of a weight that share a scale; 0 for all inputs of an output channel."""
    samples: int = 256
    """Training samples to calibrate with, balanced over the classes."""
    measure: bool = True
    """Measure memory and times of the finished file, as `seit footprint` does; takes seconds."""


@dataclass(frozen=True, kw_only=True)
class CompressConfig(TrainConfig):
    """Settings of `seit compress`, a run that makes a finished classifier smaller.

    Raises:
        UsageError: values do not fit together.
    """

    compression: CompressionConfig = field(default_factory=CompressionConfig)
    """Method and its sizes."""
    ema: EmaConfig = field(default_factory=lambda: EmaConfig(decay=0.0))
    """Average of the weights; none by default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low in {"compression.group": 0, "compression.samples": 1}.items():
            value = getattr(self.compression, name.partition(".")[2])
            require_setting(value >= low, name, self, f"at least {low}")
