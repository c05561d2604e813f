"""Stem adaptor and timm backbones."""

from seit.models.create import build_backbone, count_parameters, create_model, load_weights
from seit.models.stem import Stem
from seit.models.vit import takes_patches, vit_stem

__all__ = [
    "Stem",
    "build_backbone",
    "count_parameters",
    "create_model",
    "load_weights",
    "takes_patches",
    "vit_stem",
]
