"""Settings of a compression run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from seit.errors import UsageError
from seit.training import EmaConfig, TrainConfig, require_setting, require_shares

MethodName = Literal[
    "int8", "int8-static", "w8", "w4", "w3", "w2", "mixed", "qat", "prune", "distill"
]
RoundingName = Literal["gptq", "adaround", "nearest"]
ClipName = Literal["minmax", "mse"]
Pattern = Literal["unstructured", "2:4", "heads", "mlp", "width", "depth"]
Criterion = Literal["auto", "magnitude", "taylor", "wanda", "movement"]
_HALF = 0.5
"""Share of zeros of the pattern 2:4."""
_QUANTIZED_BITS = range(2, 9)
METHOD_NAMES: tuple[MethodName, ...] = get_args(MethodName)
CalibratorName = Literal["minmax", "percentile", "mse", "entropy"]


@dataclass(frozen=True, kw_only=True)
class CompressionConfig:
    """Method and its sizes."""

    method: MethodName = "int8"
    """Method: int8 and int8-static compute in 8 bits by ONNX Runtime, the latter with ranges of
    activations that are fixed beforehand; w8, w4, w3 and w2 store weights in as many bits; mixed
    gives each layer its own; qat trains for few bits; prune removes weights or whole parts and
    trains the rest; distill trains a smaller student."""
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
    """Let gptq round the inputs with the largest activations first."""
    damping: float = 0.01
    """Share of the mean diagonal of the inputs' second moments that gptq and adaround add to their
    diagonal; where earlier layers' errors are made up for, less than 1e-4 counts as 1e-4."""
    adaround_steps: int = 1000
    """Steps of adaround for each layer."""
    budget: float = 0.1
    """Size of the file that mixed writes, as a fraction of the bytes of the run's weights, 0–1."""
    mixed_bits: tuple[int, ...] = (2, 3, 4, 5, 6, 8)
    """Bits that mixed chooses from."""
    max_drop: float | None = None
    """Largest drop of top-1 on the dev samples, 0–1: layers stay in float, the most sensitive
    first, until it is met. None for no control."""
    bits: int = 4
    """Bits of a weight in qat, 2–8; the first and the last layer have 8."""
    activation_bits: int = 8
    """Bits of the inputs of layers in qat, 2–8; 0 for float."""
    pattern: tuple[Pattern, ...] = ("unstructured",)
    """Parts that prune removes: single weights (`unstructured`, or two of every four neighboring
    inputs, `2:4`), or attention heads, MLP units, dimensions (`width`) or blocks (`depth`) of a
    ViT. Several are separated by commas: heads,mlp."""
    sparsity: tuple[float, ...] = (0.5,)
    """Share that prune removes, 0–1; one for each pattern, or one for all."""
    criterion: Criterion = "auto"
    """Weights that prune keeps: the largest (`magnitude`), those that change the loss most
    (`taylor`), the largest times the norm of their inputs (`wanda`), or those that grow in training
    (`movement`). `auto` is magnitude for weights and taylor for parts."""
    pruning: Literal["one-shot", "cubic"] = "cubic"
    """Time at which prune removes single weights: before the first step, or gradually in the first
    half of the steps. Parts are removed before."""
    student: str | None = None
    """Recipe whose backbone distill trains; None for that of the run, changed by --model flags."""
    calibrator: CalibratorName = "minmax"
    """Range of an activation in int8-static: all calibration samples, a percentile of them, or that
    of least squared error or entropy loss."""
    percentile: float = 99.99
    """Values within the range of an activation, in percent, for the calibrator `percentile`."""
    target_cpu: Literal["auto", "avx2", "vnni", "arm"] = "auto"
    """Processor to choose 8-bit weights for: x86 without (avx2) or with (vnni) dot products of
    bytes, or ARM; auto takes this one's."""
    measure: bool = True
    """Measure memory and times of the finished file, as `seit footprint` does; takes seconds."""

    @property
    def shares(self) -> Mapping[Pattern, float]:
        """Share to remove, by pattern."""
        shares = self.sparsity * (len(self.pattern) if len(self.sparsity) == 1 else 1)
        return dict(zip(self.pattern, shares, strict=True))


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
        if self.sparsity.share:
            raise UsageError(
                f"sparsity.share is {self.sparsity.share}, but seit compress holds no weights at "
                "zero from the start; set it to 0, and prune by compression.sparsity"
            )
        least = {"group": 0, "samples": 1, "dev_samples": 1, "damping": 0, "adaround_steps": 1}
        for name, low in least.items():
            value = getattr(self.compression, name)
            require_setting(value >= low, f"compression.{name}", self, f"at least {low}")
        require_shares(self, "compression.budget", fits=lambda share: 0 < share <= 1)
        bits, max_drop = self.compression.mixed_bits, self.compression.max_drop
        fits = bool(bits) and all(1 <= one <= 8 for one in bits)
        require_setting(fits, "compression.mixed_bits", self, "from 1 to 8")
        require_setting(
            max_drop is None or 0 <= max_drop <= 1, "compression.max_drop", self, "in 0–1"
        )
        own = self.compression
        require_setting(own.bits in _QUANTIZED_BITS, "compression.bits", self, "from 2 to 8")
        fits = own.activation_bits in (0, *_QUANTIZED_BITS)
        require_setting(fits, "compression.activation_bits", self, "from 2 to 8, or 0 for float")
        percent = self.compression.percentile
        fits = 50 < percent <= 100
        require_setting(fits, "compression.percentile", self, "above 50 and at most 100")
        self._check_pruning()

    def _check_pruning(self) -> None:
        own = self.compression
        fits = 0 < len(set(own.pattern)) == len(own.pattern)
        require_setting(fits, "compression.pattern", self, "different patterns")
        fits = len(own.sparsity) in (1, len(own.pattern)) and all(0 < s < 1 for s in own.sparsity)
        require_setting(
            fits, "compression.sparsity", self, "above 0 and below 1, one for each pattern or all"
        )
        fits = not {"unstructured", "2:4"} <= set(own.pattern)
        require_setting(fits, "compression.pattern", self, "unstructured or 2:4, not both")
        fits = own.shares.get("2:4", _HALF) == _HALF
        require_setting(fits, "compression.sparsity", self, "0.5 for the pattern 2:4")
