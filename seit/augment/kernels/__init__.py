"""Token augmentation in a few Triton kernels for CUDA devices.

Triton comes with torch on Linux and is imported only when a kernel is launched. Without it,
:class:`FusedAugment` is :class:`seit.augment.TokenAugment`.
"""
