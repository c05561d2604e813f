"""Settings of a compression run."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from seit.training import EmaConfig, TrainConfig, require_setting, require_shares

MethodName = Literal["w8", "w4", "w3", "w2", "mixed"]
RoundingName = Literal["gptq", "adaround", "nearest"]
ClipName = Literal["minmax", "mse"]
METHOD_NAMES: tuple[MethodName, ...] = get_args(MethodName)


@dataclass(frozen=True, kw_only=True)
class CompressionConfig:
    """Method and its sizes."""

    method: MethodName = "w4"
    """Method: w8, w4, w3 and w2 store weights in as many bits; mixed gives each layer its own."""
    group: int = 0
    """Inputs of a weight that share a scale; 0 for all inputs of an output channel."""
    samples: int = 256
    """Training samples to calibrate with, balanced over the classes; at most half of all."""
    dev_samples: int = 1000
    """Other training samples, by which to choose."""
    rounding: RoundingName = "gptq"
    """Rounding of weights: gptq (Frantar et al., arXiv 2210.17323) and adaround (Nagel et al.,
    arXiv 2004.10568) keep the outputs of a layer; nearest rounds each weight by itself."""
    clip: ClipName = "minmax"
    """Range of a group of weights: minmax covers them all, mse gives the least squared error."""
    act_order: bool = True
    """Whether gptq rounds the inputs with the largest activations first."""
    damping: float = 0.01
    """Share of the Hessian's mean diagonal that gptq adds to its diagonal."""
    adaround_steps: int = 1000
    """Steps of adaround for each layer."""
    budget: float = 0.1
    """Size of the file that mixed writes, as a fraction of the bytes of the run's weights, 0–1."""
    bits: tuple[int, ...] = (2, 3, 4, 5, 6, 8)
    """Bits that mixed chooses from."""
    max_drop: float | None = None
    """Largest drop of top-1 on the dev samples, 0–1: layers stay in float, the most sensitive
    first, until it is met. None for no control."""


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
        least = {"group": 0, "samples": 1, "dev_samples": 1, "damping": 0, "adaround_steps": 1}
        for name, low in least.items():
            value = getattr(self.compression, name)
            require_setting(value >= low, f"compression.{name}", self, f"at least {low}")
        require_shares(self, "compression.budget", fits=lambda share: 0 < share <= 1)
        bits, max_drop = self.compression.bits, self.compression.max_drop
        require_setting(
            bool(bits) and all(1 <= one <= 8 for one in bits), "compression.bits", self, "1 to 8"
        )
        require_setting(
            max_drop is None or 0 <= max_drop <= 1, "compression.max_drop", self, "in 0–1"
        )
