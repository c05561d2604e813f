from .base import (
    Augmented as Augmented,
    crop_size_of as crop_size_of,
)
from .beta import beta_weights as beta_weights
from .color import color_adapt_ as color_adapt_
from .config import AugmentConfig as AugmentConfig, Interpolation as Interpolation
from .crop import (
    CropBoxes as CropBoxes,
    center_crop as center_crop,
    random_crop_boxes as random_crop_boxes,
    resample as resample,
    resize_matrices as resize_matrices,
)
from .cutmix import (
    Mixed as Mixed,
    apply_cutmix as apply_cutmix,
    cutmix_boxes as cutmix_boxes,
)
from .flip import random_flip as random_flip
from .geometry import (
    Geometry as Geometry,
    TokenWarper as TokenWarper,
    random_warps as random_warps,
    warp as warp,
)
from .kernels.fused import FusedAugment as FusedAugment
from .masks import (
    mask_bands as mask_bands,
    random_bands as random_bands,
    time_roll as time_roll,
)
from .mixup import apply_mixup as apply_mixup
from .noise import (
    add_noise_ as add_noise_,
    channel_units as channel_units,
    codebook_unit as codebook_unit,
)
from .philox import (
    Op as Op,
    philox4x32 as philox4x32,
)
from .pipeline import TokenAugment as TokenAugment
from .pixels import PixelAugment as PixelAugment
from .quantize import nearest_ids as nearest_ids
from .random import SampleRandom as SampleRandom
from .stored import StoredTokens as StoredTokens
from .swap import swap_squares as swap_squares
from .synonyms import (
    nearest_codes as nearest_codes,
    replace_synonyms as replace_synonyms,
)
from .views import GridViews as GridViews
