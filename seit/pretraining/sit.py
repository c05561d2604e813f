"""SiT: restore corrupted grids, contrast samples and predict rotations, jointly.

Self-supervised vision Transformer (Atito et al., arXiv 2104.03602). A student sees two corrupted
views of each sample. It restores the missing cells from its patch features, and its pooled feature
must match that of the clean other view, as seen by a momentum teacher, among those of all samples.
A third task of the paper's first version predicts the rotation of a grid; it is optional, as are
its task weights learned by uncertainty.

Differences from the paper: images are grids of codes, restored as codes. The contrastive task uses
the pooled feature, the mean over patches, as classifiers here do; rotation is predicted from the
class token, which keeps the pooled feature free of it.

The loss is recon_weight · R + contrast_weight · C, as in the authors' code: R is the mean over the
changed cells of both views, C the sum of both directions, each from the corrupted view to the clean
other one. But R is a cross-entropy over K codes, about ln K nats at first and 5 later, where theirs
is an L1 distance of normalized pixels of some tenths; so their factor of 5 for small corpora, which
balances both losses there, does not apply. With both weights 1 the encoder's gradient of R is
somewhat larger than that of C at the start, and a third to two thirds of it from step 30 on.

Legend: B batch, h w token grid, L patches, s cells along a patch's side, C codebook dim, K codes, D
model dim, E dim of projections, T tasks, P = 1 + T parts of the loss.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from timm.models import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from seit.errors import UsageError
from seit.models import check_encoder
from seit.pretraining.contrast import ProjectionHead, nt_xent
from seit.pretraining.corruption import Corruption, CorruptionConfig
from seit.pretraining.momentum import Teacher, start_momentum, teacher_momentum
from seit.pretraining.patches import Reconstruction, patchify, unpatchify
from seit.pretraining.reconstruction import ReconstructionHead, Target, mean_where
from seit.pretraining.rotation import NUM_TURNS

TASKS = ("recon", "contrast", "rotation")
"""All tasks, in the order of the parts of the loss."""


@dataclass(frozen=True, kw_only=True)
class SitConfig:
    """SiT; defaults are the paper's final version. Raises UsageError for invalid values."""

    tasks: tuple[str, ...] = ("recon", "contrast")
    """Tasks to learn: any of recon, contrast and rotation, each once."""
    corruption: CorruptionConfig = field(default_factory=CorruptionConfig)
    """Corruption of the student's views."""
    temperature: float = 0.2
    """Temperature of the contrastive loss, above 0."""
    recon_weight: float = 1.0
    """Weight of the loss of `recon`, the mean over both views. The paper's 5 for little data
    applies to an L1 distance of pixels, not to the cross-entropy of codes."""
    contrast_weight: float = 1.0
    """Weight of the loss of `contrast`, the sum of both directions."""
    rotation_weight: float = 0.5
    """Weight of the loss of `rotation`."""
    learn_weights: bool = False
    """Learn a log-variance s per task; a loss l then counts weight · exp(−s) · l + s / 2 (Kendall
    et al., arXiv 1705.07115)."""
    recon: Target = "codes"
    """Target of `recon`: `codes` by cross-entropy, or their `vectors` by L1."""
    momentum: float | None = None
    """Teacher's momentum in the first step, 0–1; rises to 1 by a cosine. None is 1 − 40 / steps,
    within 0.9 and the paper's 0.996, which is meant for long runs."""
    head_hidden_dim: int = 4096
    """Width of the projection head."""
    head_dim: int = 256
    """E, output width of the projection head."""

    def __post_init__(self) -> None:
        if not self.tasks or set(self.tasks) - set(TASKS) or len(set(self.tasks)) < len(self.tasks):
            raise UsageError(
                f"sit.tasks is {', '.join(self.tasks) or 'empty'}; expected one or more of "
                f"{', '.join(TASKS)}, each once"
            )
        if not 0 < self.temperature < math.inf:
            raise UsageError(
                f"sit.temperature is {self.temperature}; expected above 0 and finite: 0.2 is usual"
            )
        for name in ("recon_weight", "contrast_weight", "rotation_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(
                    f"sit.{name} is {getattr(self, name)}; expected 0 or more, and finite"
                )
        if self.recon not in ("codes", "vectors"):
            raise UsageError(f"sit.recon is {self.recon!r}; expected codes or vectors")
        if self.momentum is not None and not 0 <= self.momentum <= 1:
            raise UsageError(
                f"sit.momentum is {self.momentum}; expected 0 to 1, or none for one by the run's "
                "length"
            )
        for name in ("head_hidden_dim", "head_dim"):
            if getattr(self, name) < 1:
                raise UsageError(f"sit.{name} is {getattr(self, name)}; expected at least 1")

    @property
    def ordered_tasks(self) -> tuple[str, ...]:
        """Tasks in the order of the parts of the loss."""
        return tuple(task for task in TASKS if task in self.tasks)


class SitViews(NamedTuple):
    """Two views of each sample of a batch.

    Attributes:
        clean: ids of both views, (B, h, w) int64, 0 to K − 1.
        corrupted: the same views, corrupted independently.
        rotated: ids of the first view turned, (B, h, w) int64, 0 to K − 1; for the task `rotation`.
        quarter_turns: (B,) int64, 0 to 3: number of quarter turns.
    """

    clean: tuple[Tensor, Tensor]
    corrupted: tuple[Corruption, Corruption]
    rotated: Tensor | None = None
    quarter_turns: Tensor | None = None

    def select(self, rows: slice) -> "SitViews":
        """Return the views of some samples."""
        first, second = self.clean
        one, other = (Corruption(each.ids[rows], each.changed[rows]) for each in self.corrupted)
        return SitViews(
            (first[rows], second[rows]),
            (one, other),
            None if self.rotated is None else self.rotated[rows],
            None if self.quarter_turns is None else self.quarter_turns[rows],
        )


class _Features(NamedTuple):
    token: Tensor
    patches: Tensor
    pooled: Tensor


class Sit(nn.Module):
    """Student, teacher and the heads that the tasks need.

    A step takes two passes of the student, three with `rotation`, and two of the teacher. The
    teacher is part of the state, so checkpoints include it.

    Args:
        encoder: ViT without a classifier, from `build_encoder`.
        side: s, of the encoder's stem, whose patches do not overlap.

    Attributes:
        encoder: the student's encoder, the one to use later.
        names: names of the P parts of the loss.
    """

    codebook: Tensor

    def __init__(
        self, encoder: nn.Module, codebook_KC: Tensor, config: SitConfig, *, side: int
    ) -> None:
        super().__init__()
        self.config = config
        self.tasks = config.ordered_tasks
        self.names = ("loss", *self.tasks)
        self.side = side
        self.encoder: VisionTransformer = check_encoder(encoder)
        self.register_buffer("codebook", codebook_KC.detach().float(), persistent=False)
        # The codebook's mean is neutral; the mask vector is learned from there.
        self.mask_vector = nn.Parameter(self.codebook.mean(dim=0))
        dim: int = self.encoder.embed_dim
        if "recon" in self.tasks:
            self.reconstruction = ReconstructionHead(
                dim, codebook_KC, side=side, target=config.recon
            )
        if "contrast" in self.tasks:
            self.projection = ProjectionHead(
                dim, hidden_dim=config.head_hidden_dim, out_dim=config.head_dim
            )
            self.teacher = Teacher(self.encoder, self.projection)
        if "rotation" in self.tasks:
            self.rotation = nn.Linear(dim, NUM_TURNS)
        if config.learn_weights:
            self.log_variances = nn.Parameter(torch.zeros(len(self.tasks)))

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters without weight decay, for timm's optimizers."""
        inner = {f"encoder.{name}" for name in self.encoder.no_weight_decay()}
        return {*inner, "mask_vector", "log_variances"}

    @override
    def forward(self, views: SitViews) -> Tensor:
        """Return the parts (P,) of the loss, float32: the total, then each task's own, unweighted.

        Raises:
            UsageError: `contrast` got a batch of one sample.
        """
        losses = {}
        if "recon" in self.tasks or "contrast" in self.tasks:
            students = [self._features(each.ids) for each in views.corrupted]
            if "recon" in self.tasks:
                losses["recon"] = self._restore(students, views)
            if "contrast" in self.tasks:
                losses["contrast"] = self._contrast(students, views)
        if "rotation" in self.tasks:
            losses["rotation"] = self._tell_turns(views)
        losses_T = torch.stack([losses[task] for task in self.tasks])
        return torch.cat([self._weigh(losses_T).view(1), losses_T])

    def update_teacher(self, done: int, total: int) -> None:
        """Update the teacher after ``done`` of ``total`` steps of the run."""
        if "contrast" in self.tasks:
            start = self.config.momentum
            if start is None:
                start = start_momentum(total)
            momentum = teacher_momentum(start, done / total)
            self.teacher.follow(self.encoder, self.projection, momentum=momentum)

    def embed(self, ids_Bhw: Tensor) -> Tensor:
        """Return vectors of ids, float32 (B, C, h, w); the id K stands for the mask's."""
        num_codes = len(self.codebook)
        vectors = F.embedding(ids_Bhw.clamp(max=num_codes - 1), self.codebook)
        vectors = torch.where((ids_Bhw == num_codes)[..., None], self.mask_vector, vectors)
        return vectors.permute(0, 3, 1, 2)

    @torch.no_grad()
    def reconstruct(self, ids_Bhw: Tensor, corrupted: Corruption) -> Reconstruction:
        """Restore the changed cells of grids; requires the task `recon`.

        Args:
            ids_Bhw: (B, h, w) int64, 0 to K − 1: the true ids.
            corrupted: the same grids, corrupted.

        Returns:
            The reconstruction; cells outside any patch keep their ids and count as not masked.
        """
        features = self._features(corrupted.ids)
        logits = self.reconstruction.logits(features.patches).float()
        truth_BLs, changed_BLs = (
            patchify(cells, self.side) for cells in (ids_Bhw, corrupted.changed)
        )
        loss = F.cross_entropy(logits.flatten(0, 2), truth_BLs.flatten(), reduction="none")
        predicted = torch.where(changed_BLs, logits.argmax(dim=-1), truth_BLs)
        size = (ids_Bhw.shape[1], ids_Bhw.shape[2])
        nowhere = torch.zeros_like(corrupted.changed)
        return Reconstruction(
            unpatchify(predicted, size, fill=ids_Bhw),
            unpatchify(changed_BLs, size, fill=nowhere),
            mean_where(loss.view_as(truth_BLs), changed_BLs),
        )

    def _features(self, ids_Bhw: Tensor) -> _Features:
        """Return class token, patch and pooled features, all after the final norm."""
        vit = self.encoder
        tokens = vit.forward_features(self.embed(ids_Bhw))
        normed = vit.fc_norm(tokens)
        pooled = vit.forward_head(tokens, pre_logits=True)
        return _Features(normed[:, 0], normed[:, vit.num_prefix_tokens :], pooled)

    def _restore(self, students: list[_Features], views: SitViews) -> Tensor:
        restorations = [
            self.reconstruction.loss(student.patches, ids_Bhw, corrupted.changed)
            for student, ids_Bhw, corrupted in zip(
                students, views.clean, views.corrupted, strict=True
            )
        ]
        return torch.stack(restorations).mean()

    def _contrast(self, students: list[_Features], views: SitViews) -> Tensor:
        keys = [self.teacher(self.embed(ids_Bhw)) for ids_Bhw in views.clean]
        queries = [self.projection(student.pooled) for student in students]
        directions = [
            nt_xent(query, key, temperature=self.config.temperature)
            for query, key in zip(queries, reversed(keys), strict=True)
        ]
        return torch.stack(directions).sum()

    def _tell_turns(self, views: SitViews) -> Tensor:
        assert views.rotated is not None
        assert views.quarter_turns is not None
        logits = self.rotation(self._features(views.rotated).token)
        return F.cross_entropy(logits.float(), views.quarter_turns)

    def weighted(self, losses_T: Tensor) -> Tensor:
        """Return the tasks' losses (T,) times their fixed and learned weights."""
        if self.config.learn_weights:
            losses_T = torch.exp(-self.log_variances) * losses_T
        weights = [getattr(self.config, f"{task}_weight") for task in self.tasks]
        # Avoids copying the weights to the device.
        terms = [weight * loss for weight, loss in zip(weights, losses_T.unbind(), strict=True)]
        return torch.stack(terms)

    def _weigh(self, losses_T: Tensor) -> Tensor:
        """Return the total loss (scalar)."""
        total = self.weighted(losses_T).sum()
        return total + self.log_variances.sum() / 2 if self.config.learn_weights else total
