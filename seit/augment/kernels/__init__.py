"""The augmentation of tokens as a few kernels for CUDA devices, in Triton.

Triton comes with torch on Linux and is imported when a kernel is launched, never before. Where it
is missing, :class:`FusedAugment` is :class:`seit.augment.TokenAugment`.
"""
