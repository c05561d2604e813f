"""The learning rates of trainings of tokenizers and of TokenAdapt."""

import math


def warm_cosine(step: int, *, peak: float, warmup_steps: int, steps: int) -> float:
    """Return the rate of step number ``step`` (from 0): linear warm-up, then a cosine to 0."""
    warmup = min(warmup_steps, steps - 1)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
