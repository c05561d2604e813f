"""Token and pixel augmentation, batched, on the batch's device, the same however it is split.

Every random draw is a function of (seed, epoch, global position of the sample) alone.
"""

from seit.augment.config import AugmentConfig
from seit.augment.crop import (
    CropBoxes,
    Interpolation,
    center_crop,
    random_crop_boxes,
    resample,
    resize_matrices,
)
from seit.augment.cutmix import Mixed, beta_weights, cutmix, cutmix_boxes
from seit.augment.flip import random_flip
from seit.augment.noise import add_noise_, codebook_unit
from seit.augment.philox import Op, SampleRandom, philox4x32
from seit.augment.pipeline import Augmented, TokenAugment
from seit.augment.pixels import PixelAugment
from seit.augment.swap import swap_squares
from seit.augment.synonyms import nearest_codes, replace_synonyms

__all__ = [
    "AugmentConfig",
    "Augmented",
    "CropBoxes",
    "Interpolation",
    "Mixed",
    "Op",
    "PixelAugment",
    "SampleRandom",
    "TokenAugment",
    "add_noise_",
    "beta_weights",
    "center_crop",
    "codebook_unit",
    "cutmix",
    "cutmix_boxes",
    "nearest_codes",
    "philox4x32",
    "random_crop_boxes",
    "random_flip",
    "replace_synonyms",
    "resample",
    "resize_matrices",
    "swap_squares",
]
