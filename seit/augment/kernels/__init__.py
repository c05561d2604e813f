"""The augmentation of tokens as one kernel for CUDA devices, in Triton.

Triton comes with torch on Linux and is imported when the kernel is launched, never before. Where it
is missing, :class:`FusedAugment` is :class:`seit.augment.TokenAugment`.
"""

from seit.augment.kernels.embed import fused_embed
from seit.augment.kernels.fused import FusedAugment
from seit.augment.kernels.plan import Plan, draw_plan

__all__ = ["FusedAugment", "Plan", "draw_plan", "fused_embed"]
