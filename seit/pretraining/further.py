"""Further pretraining with self-distillation (Lee et al., ICLR 2023, arXiv 2210.02871).

Masked token modeling continues from a finished run on a small target corpus, where it overfits:
features degrade with its length. So it is done twice. A teacher is pretrained further; a student
starts from the same weights and, in addition to the masked tokens, learns to match the teacher's
features of the whole grid. Costs twice as much as plain further pretraining.

The paper adds the squared distance, summed over the 768 dims of a ViT-B, to a squared error of
normalized pixels at about 0.4 of its initial value; a cross-entropy of codes falls to about 0.8 of
its initial value, ln K. To give a weight of 1 the paper's meaning, the distance is the mean over
dims · 768 · (0.8 · ln K) / 0.4, for any width and codebook: see `distance_scale`. Like the paper,
our recipes use no augmentation.

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
"""Width of the paper's ViT-B, over which it sums."""
_PAPER_LOSS, _OUR_LOSS = 0.4, 0.8
"""Share of the initial loss that remains during further pretraining: of a masked autoencoder's
squared error of normalized pixels, and of a masked token model's cross-entropy."""


@dataclass(frozen=True, kw_only=True)
class FurtherConfig:
    """Self-distillation in further pretraining; raises UsageError for a weight below 0."""

    teacher: str | None = None
    """Finished pretraining run of the teacher. None trains it first, in the subfolder `teacher`,
    with the same settings but without distillation."""
    weight: float = 1.0
    """Weight of the squared distance to the teacher's features; 1 corresponds to the paper's 1, and
    0 is plain further pretraining."""
    features: Literal["pooled", "cls", "both"] = "both"
    """Features to match: the mean over patches, as used by our classifiers; the class token's, as
    in the paper; or the mean of both distances."""

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise UsageError(f"further.weight is {self.weight}; expected 0 or more, and finite")


class FurtherModel(nn.Module):
    """A masked token model and a frozen teacher.

    Args:
        student: masked token model with the weights of the first pretraining.
        teacher: encoder weights after plain further pretraining; None for the student's.
        origin: source of the teacher, for messages.

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
        """The student's encoder."""
        return self.student.encoder

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters without weight decay, for timm's optimizers."""
        return {f"student.{name}" for name in self.student.no_weight_decay()}

    @override
    def train(self, mode: bool = True) -> "FurtherModel":
        """Set the mode; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    @override
    def forward(self, ids_Bhw: Tensor, order_BL: Tensor, num_masked: int) -> Tensor:
        """Return total, masked-token and scaled distance loss, float32 (3,).

        Arguments as in :meth:`MaskedTokenModel.forward`.
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
    """Return the mean squared difference over dimensions and batch (scalar)."""
    return (student_BD - teacher_BD).square().mean()


def distance_scale(num_codes: int) -> float:
    """Return the factor from a mean over dims to the scale of the paper's sum: 1,536 · ln K."""
    return _PAPER_DIM * _OUR_LOSS * math.log(num_codes) / _PAPER_LOSS
