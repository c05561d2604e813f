"""Settings of a compression run."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from seit.training import EmaConfig, TrainConfig, require_setting

MethodName = Literal["int8", "int8-static", "w8", "w4", "w3", "w2"]
METHOD_NAMES: tuple[MethodName, ...] = get_args(MethodName)
CalibratorName = Literal["minmax", "percentile", "mse", "entropy"]


@dataclass(frozen=True, kw_only=True)
class CompressionConfig:
    """Method and its sizes."""

    method: MethodName = "int8"
    """Method: int8 and int8-static compute in 8 bits by ONNX Runtime, the latter with ranges of
    activations that are fixed beforehand; w8, w4, w3 and w2 store weights in as many bits."""
    group: int = 0
    """Inputs of a weight that share a scale; 0 for all inputs of an output channel."""
    samples: int = 256
    """Training samples to calibrate with, balanced over the classes."""
    calibrator: CalibratorName = "minmax"
    """Range of an activation in int8-static: all calibration samples, a percentile of them, or that
    of least squared error or entropy loss."""
    percentile: float = 99.99
    """Values within the range of an activation, in percent, for the calibrator `percentile`."""
    target_cpu: Literal["auto", "avx2", "vnni", "arm"] = "auto"
    """Processor to choose 8-bit weights for: x86 without (avx2) or with (vnni) dot products of
    bytes, or ARM; auto takes this one's."""


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
        percent = self.compression.percentile
        fits = 50 < percent <= 100
        require_setting(fits, "compression.percentile", self, "above 50 and at most 100")
