"""Further pre-training with self-distillation (Lee et al., ICLR 2023, arXiv 2210.02871).

Masked token modelling continues from a finished run on a small target corpus, where it overfits:
the longer it lasts, the worse the features become. So it is done twice. A teacher is pre-trained
further as it is; a student starts again from the same weights, and besides masking learns to give
the teacher's features of the whole grid. Costs twice as much as plain further pre-training.

The paper adds the squared distance, summed over the 768 dims of a ViT-B, to a squared error of
normalized pixels that has come down to about 0.4 of its start; a cross-entropy of codes comes down
to about 0.8 of its start, ln K. So that a weight of 1 means here what it means there, the
distance is the mean over dims · 768 · (0.8 · ln K) / 0.4, whatever the width and the codebook: see
`distance_scale`. The paper's further pre-training augments nothing; nor do our recipes.

Legend: B batch, h w token grid, L patches, D model dim, K codes.
"""

import copy
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from seit.errors import UsageError
from seit.models import check_encoder, encode, load_weights
from seit.pretraining.mtm import MaskedTokenModel

_PAPER_DIM = 768
"""Dims over which the paper sums, those of its ViT-B."""
_PAPER_LOSS, _OUR_LOSS = 0.4, 0.8
"""Shares of the loss of knowing nothing that are left where further pre-training takes place: of a
masked autoencoder's squared error of normalized pixels, of a masked token model's cross-entropy."""


@dataclass(frozen=True, kw_only=True)
class FurtherConfig:
    """Self-distillation in further pre-training.

    Raises:
        UsageError: for a weight below 0.
    """

    teacher: str | None = None
    """A finished pre-training run that teaches. None makes it first, in the run's folder
    `teacher`: with the same settings, without distillation."""
    weight: float = 1.0
    """Weight of the squared distance to the teacher's features; 1 weighs
    as much as the paper's 1, and 0 is plain further pre-training."""
    features: Literal["pooled", "cls", "both"] = "both"
    """Which features: the mean over patches, which classifiers here see, the class token's, which
    the paper takes, or the mean of both distances."""

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise UsageError(f"further.weight is {self.weight}; expected 0 or more, and finite")


class FurtherModel(nn.Module):
    """A masked token model and a frozen teacher.

    Args:
        student: the masked token model, which starts from the weights of the first pre-training.
        teacher: its encoder's weights after plain further pre-training; None leaves the student's.
        config: of the distillation.
        origin: where the teacher comes from, for messages.

    Raises:
        UsageError: the teacher's weights are of another encoder.
    """

    def __init__(
        self,
        student: MaskedTokenModel,
        teacher: dict[str, Tensor] | None,
        config: FurtherConfig,
        *,
        origin: str,
    ) -> None:
        super().__init__()
        self.config = config
        self.student = student
        self.scale = distance_scale(len(student.codebook))
        self.teacher = check_encoder(copy.deepcopy(student.encoder))
        if teacher is not None:
            load_weights(self.teacher, teacher, origin=origin)
        self.teacher.requires_grad_(False).eval()

    @property
    def encoder(self) -> nn.Module:
        """The student's."""
        return self.student.encoder

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that are not decayed, for timm's optimisers."""
        return {f"student.{name}" for name in self.student.no_weight_decay()}

    @override
    def train(self, mode: bool = True) -> "FurtherModel":
        """The teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    @override
    def forward(self, ids_Bhw: Tensor, order_BL: Tensor, num_masked: int) -> Tensor:
        """The loss and its parts, float32 (3,): total, masked tokens, scaled distance.

        Arguments as of :meth:`MaskedTokenModel.forward`.
        """
        masked: Tensor = self.student(ids_Bhw, order_BL, num_masked)
        if not self.config.weight:
            return torch.stack([masked, masked, torch.zeros_like(masked)])
        inputs = self.student.embed(ids_Bhw)
        with torch.no_grad():
            target = self._features(self.teacher, inputs)
        features = self._features(self.student.encoder, inputs)
        distance = self.scale * feature_distance(features, target)
        return torch.stack([masked + self.config.weight * distance, masked, distance])

    def _features(self, vit: nn.Module, inputs_BChw: Tensor) -> Tensor:
        """Return the features to compare, float32 (B, D) or (B, 2·D)."""
        vit = check_encoder(vit)
        encoded = encode(vit, inputs_BChw)
        both = {"cls": encoded.prefix, "pooled": encoded.patches.mean(dim=1)}
        chosen = both if self.config.features == "both" else (self.config.features,)
        return torch.cat([both[name].float() for name in chosen], dim=1)


def feature_distance(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Return the squared difference, the mean over dimensions and over the batch (scalar)."""
    return (student_BD - teacher_BD).square().mean()


def distance_scale(num_codes: int) -> float:
    """Return the factor by which a mean over dims weighs as the paper's sum does: 1,536 · ln K.

    Args:
        num_codes: K.
    """
    return _PAPER_DIM * _OUR_LOSS * math.log(num_codes) / _PAPER_LOSS
