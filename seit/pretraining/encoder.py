"""The encoder of a pretraining model, and the heads around it."""

from typing import TYPE_CHECKING

from timm.models import VisionTransformer
from torch import Tensor, nn

from seit.augment import TokenAugment
from seit.models import Stem, build_backbone, check_encoder

if TYPE_CHECKING:  # the settings look up facts about objectives
    from seit.pretraining.config import PretrainConfig

HEADS_NAME = "pretraining.safetensors"
"""File in the run folder with the weights outside the encoder, for further pretraining."""
ENCODER = "encoder."
"""Prefix of the names of the encoder's weights."""


def build_encoder(config: "PretrainConfig", augment: TokenAugment) -> nn.Module:
    """Build the backbone without its classifier; raise UsageError if it cannot be pretrained."""
    vit = build_backbone(
        config.model.name,
        channels=augment.channels,
        input_size=augment.output_size,
        stem=str(Stem.parse(config.model.stem)),
        num_classes=1,
        **config.model.timm_kwargs(),
    )
    vit = check_encoder(vit)
    vit.reset_classifier(0)
    return vit


def encoder_of(model: nn.Module) -> VisionTransformer:
    """Return the encoder of a pretraining model."""
    encoder = model.encoder
    assert isinstance(encoder, nn.Module)
    return check_encoder(encoder)


def heads_of(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's weights outside its encoder, by names shared by all kinds.

    For a distilled model, these are the student's; the teacher belongs to another run.
    """
    student = getattr(model, "student", model)
    state: dict[str, Tensor] = student.state_dict()
    return {key: value for key, value in state.items() if not key.startswith(ENCODER)}
