"""Settings of a compression run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from seit.training import EmaConfig, TrainConfig, require_setting

MethodName = Literal["w8", "w4", "w3", "w2", "qat", "prune", "distill"]
Pattern = Literal["unstructured", "2:4", "heads", "mlp", "width", "depth"]
Criterion = Literal["auto", "magnitude", "taylor", "wanda", "movement"]
_HALF = 0.5
"""Share of zeros of the pattern 2:4."""
_QUANTIZED_BITS = range(2, 9)
METHOD_NAMES: tuple[MethodName, ...] = get_args(MethodName)


@dataclass(frozen=True, kw_only=True)
class CompressionConfig:
    """Method and its sizes."""

    method: MethodName = "w4"
    """Method: w8, w4, w3 and w2 store weights in as many bits; qat trains for few bits; prune
    removes weights or whole parts and trains the rest; distill trains a smaller student."""
    group: int = 0
    """Inputs of a weight that share a scale; 0 for all inputs of an output channel."""
    samples: int = 256
    """Training samples to calibrate with, balanced over the classes."""
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
        for name, low in {"compression.group": 0, "compression.samples": 1}.items():
            value = getattr(self.compression, name.partition(".")[2])
            require_setting(value >= low, name, self, f"at least {low}")
        own = self.compression
        require_setting(own.bits in _QUANTIZED_BITS, "compression.bits", self, "from 2 to 8")
        fits = own.activation_bits in (0, *_QUANTIZED_BITS)
        require_setting(fits, "compression.activation_bits", self, "from 2 to 8, or 0 for float")
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
