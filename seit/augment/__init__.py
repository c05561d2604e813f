"""Batched token and pixel augmentation on the batch's device, independent of batch splits.

Every random draw is a function of (seed, epoch, global position of the sample) alone.
"""

from seit.augment.base import Augmented, crop_size_of
from seit.augment.beta import beta_weights
from seit.augment.color import color_adapt_
from seit.augment.config import AugmentConfig
from seit.augment.crop import (
    CropBoxes,
    Interpolation,
    center_crop,
    random_crop_boxes,
    resample,
    resize_matrices,
)
from seit.augment.cutmix import Mixed, cutmix, cutmix_boxes
from seit.augment.flip import random_flip
from seit.augment.geometry import Geometry, TokenWarper, random_warps, warp
from seit.augment.kernels.fused import FusedAugment
from seit.augment.masks import mask_bands, random_bands, time_roll
from seit.augment.mixup import mixup
from seit.augment.noise import add_noise_, channel_units, codebook_unit
from seit.augment.philox import Op, philox4x32
from seit.augment.pipeline import TokenAugment
from seit.augment.pixels import PixelAugment
from seit.augment.quantize import nearest_ids
from seit.augment.random import SampleRandom
from seit.augment.stored import StoredTokens
from seit.augment.swap import swap_squares
from seit.augment.synonyms import nearest_codes, replace_synonyms
from seit.augment.views import GridViews

__all__ = [
    "AugmentConfig",
    "Augmented",
    "CropBoxes",
    "FusedAugment",
    "Geometry",
    "GridViews",
    "Interpolation",
    "Mixed",
    "Op",
    "PixelAugment",
    "SampleRandom",
    "StoredTokens",
    "TokenAugment",
    "TokenWarper",
    "add_noise_",
    "beta_weights",
    "center_crop",
    "channel_units",
    "codebook_unit",
    "color_adapt_",
    "crop_size_of",
    "cutmix",
    "cutmix_boxes",
    "mask_bands",
    "mixup",
    "nearest_codes",
    "nearest_ids",
    "philox4x32",
    "random_bands",
    "random_crop_boxes",
    "random_flip",
    "random_warps",
    "replace_synonyms",
    "resample",
    "resize_matrices",
    "swap_squares",
    "time_roll",
    "warp",
]
