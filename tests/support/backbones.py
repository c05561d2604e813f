"""Small backbones that the tests of tuning share."""

import copy
from functools import cache

import torch
from torch import nn

from seit.models import build_backbone
from seit.models.tuning import TuningConfig, make_tuning

ALL = ("q", "k", "v", "proj", "fc1", "fc2")


def make_vit(seed=0, **kwargs):
    return copy.deepcopy(built_vit(seed, **kwargs))


@cache
def built_vit(seed, **kwargs):
    torch.manual_seed(seed)
    settings = {"embed_dim": 24, "depth": 2, "num_heads": 3, **kwargs}
    model = build_backbone(
        "vit_tiny_patch16_224", channels=6, input_size=(8, 8), num_classes=5, **settings
    )
    for key, weight in model.named_parameters():  # biases of 0 would hide what is done to them
        if weight.ndim == 1:
            nn.init.normal_(weight, 1.0 if "norm" in key and "weight" in key else 0.0, 0.1)
    return model.eval()


def inputs(seed=1, samples=4):
    return torch.randn(samples, 6, 8, 8, generator=torch.Generator().manual_seed(seed))


def stir(tuning, seed=2):
    """Give what a tuning trains other values, none of them zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in tuning.parameters().values():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)


def adalora(model, **kwargs):
    settings = {"rank": 2, "targets": ALL, "mask_every": 1, "initial_rank": 4, **kwargs}
    tuning = make_tuning(TuningConfig(method="adalora", **settings))
    tuning.attach(model)
    return tuning
