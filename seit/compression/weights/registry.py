"""Roundings and clips of weights, by name."""

from collections.abc import Callable, Mapping

from seit.compression.config import ClipName, CompressionConfig, RoundingName
from seit.compression.weights.adaround import AdaRound
from seit.compression.weights.clip import Clip, LeastSquares, MinMax
from seit.compression.weights.gptq import GPTQ
from seit.compression.weights.rounding import Nearest, Rounding

ROUNDINGS: Mapping[RoundingName, Callable[[CompressionConfig], Rounding]] = {
    "gptq": lambda config: GPTQ(damping=config.damping, act_order=config.act_order),
    "adaround": lambda config: AdaRound(steps=config.adaround_steps),
    "nearest": lambda _: Nearest(),
}
CLIPS: Mapping[ClipName, Clip] = {"minmax": MinMax(), "mse": LeastSquares()}
