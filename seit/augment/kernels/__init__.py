"""The augmentation of tokens as a few kernels for CUDA devices, in Triton.

Triton comes with torch on Linux and is imported when a kernel is launched, never before. Where it
is missing, :class:`FusedAugment` is :class:`seit.augment.TokenAugment`.
"""

from seit.augment.kernels.draws import draw_triton
from seit.augment.kernels.edit import edit_triton
from seit.augment.kernels.embed import fused_embed
from seit.augment.kernels.fused import FusedAugment
from seit.augment.kernels.plan import Plan, draw_plan, draw_plan_triton
from seit.augment.kernels.tokens import TokenSource

__all__ = [
    "FusedAugment",
    "Plan",
    "TokenSource",
    "draw_plan",
    "draw_plan_triton",
    "draw_triton",
    "edit_triton",
    "fused_embed",
]
