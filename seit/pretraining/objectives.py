"""Pretraining objectives for the training loop.

Legend: B batch, h w token grid, L patches, P parts of the loss, K codes, C codebook dim.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn
from typing_extensions import override

from seit.augment import SampleRandom, TokenAugment
from seit.errors import UsageError
from seit.models import Stem
from seit.pretraining.base import Pretraining
from seit.pretraining.corruption import Corruption, CorruptionConfig, corrupt
from seit.pretraining.encoder import build_encoder
from seit.pretraining.further import FurtherModel
from seit.pretraining.gradients import gradient_norms
from seit.pretraining.masks import draw_order, draw_share
from seit.pretraining.mtm import MaskedTokenModel
from seit.pretraining.patches import Reconstruction, patch_side
from seit.pretraining.rotation import draw_quarter_turns, rotate
from seit.pretraining.sit import Sit, SitViews
from seit.shards import Store
from seit.training import SECOND_VIEW, Ranks, Run, TrainBatch, check_tokens

if TYPE_CHECKING:  # the settings look up facts about objectives
    from seit.pretraining.config import PretrainConfig


class _Masked(NamedTuple):
    ids: Tensor
    order: Tensor
    num_masked: int


class MaskedTokens(Pretraining):
    """Masked token modeling; see `seit.pretraining.mtm`."""

    title = "masked token modeling"
    heads_from = frozenset({"mtm", "further"})

    @override
    @classmethod
    def build(cls, config: "PretrainConfig", augment: TokenAugment) -> MaskedTokenModel:
        return MaskedTokenModel(
            build_encoder(config, augment),
            augment.codebook,
            config.mtm,
            side=patch_side(Stem.parse(config.model.stem)),
        )

    @property
    def _num_patches(self) -> int:
        return _student(self.model).num_patches

    @override
    def prepare(self, batch: TrainBatch, step: int) -> _Masked:
        mask, seed = self.config.mtm.mask, self.config.run.seed
        share = draw_share(mask, seed=seed, epoch=batch.epoch, step=step)
        return _Masked(
            self.ids_of(batch.augmented.inputs),
            draw_order(self.random_of(batch), self._num_patches),
            mask.num_masked(self._num_patches, share),
        )

    @override
    def loss(self, network: nn.Module, batch: TrainBatch, prepared: _Masked, rows: slice) -> Tensor:
        with self.autocast:
            loss: Tensor = network(prepared.ids[rows], prepared.order[rows], prepared.num_masked)
        return loss.float().view(-1)

    @override
    def reconstruct(
        self, model: nn.Module, ids_Bhw: Tensor, random: SampleRandom
    ) -> Reconstruction:
        mask = self.config.mtm.mask
        num_masked = mask.num_masked(self._num_patches, mask.expected)
        order_BL = draw_order(random, self._num_patches)
        return _student(model).reconstruct(ids_Bhw, order_BL, num_masked)


class FurtherMaskedTokens(MaskedTokens):
    """Further masked token modeling with a teacher; see `seit.pretraining.further`."""

    title = "masked tokens further, with self-distillation"
    teacher = "mtm"
    revised = ("further.weight",)
    parts = ("loss", "masked_tokens", "distance")

    @override
    @classmethod
    def finish(
        cls, config: "PretrainConfig", model: nn.Module, teacher: Path | None, store: Store
    ) -> FurtherModel:
        weights = None
        if teacher is not None:
            run = Run.open(teacher)
            check_tokens(run, store)
            weights = run.load_weights()
        return FurtherModel(_student(model), weights, config.further, origin=str(teacher))


def _student(model: nn.Module) -> MaskedTokenModel:
    """Return the model itself, or the student of one with a teacher."""
    student = getattr(model, "student", model)
    assert isinstance(student, MaskedTokenModel)
    return student


class SiameseTokens(Pretraining):
    """SiT; see `seit.pretraining.sit`."""

    views = 2
    title = "SiT"
    heads_from = frozenset({"sit"})
    revised = ("sit.contrast_weight", "sit.corruption")
    model: Sit

    def __init__(
        self,
        config: "PretrainConfig",
        store: Store,
        ranks: Ranks,
        *,
        init_from: Path | None,
        teacher: Path | None,
    ) -> None:
        super().__init__(config, store, ranks, init_from=init_from, teacher=teacher)
        self.parts = self.model.names
        self.predicts_codes = "recon" in self.model.tasks
        self._last: tuple[SitViews, slice] | None = None

    @override
    @classmethod
    def build(cls, config: "PretrainConfig", augment: TokenAugment) -> Sit:
        return Sit(
            build_encoder(config, augment),
            augment.codebook,
            config.sit,
            side=patch_side(Stem.parse(config.model.stem)),
        )

    @override
    @classmethod
    def adopt(cls, model: nn.Module) -> None:
        assert isinstance(model, Sit)
        if "contrast" in model.tasks:
            model.teacher.follow(model.encoder, model.projection, momentum=0)

    @override
    @classmethod
    def check(cls, config: "PretrainConfig") -> None:
        if "rotation" in config.sit.tasks and not config.augment.token_adapt:
            raise UsageError(
                "the task rotation turns grids through a TokenAdapt network, and "
                "augment.token_adapt names none; name one, or leave the task out of sit.tasks"
            )

    @override
    def sparse_copies(self) -> Sequence[nn.Module]:
        return (self.model.teacher,) if "contrast" in self.model.tasks else ()

    @override
    def prepare(self, batch: TrainBatch, step: int) -> SitViews:
        assert batch.second is not None
        first, second = (self.ids_of(view.inputs) for view in (batch.augmented, batch.second))
        seed = self.config.run.seed
        draws = [
            SampleRandom(own, batch.epoch, batch.positions) for own in (seed, seed + SECOND_VIEW)
        ]
        views = SitViews(
            (first, second), (self._corrupt(first, draws[0]), self._corrupt(second, draws[1]))
        )
        if "rotation" not in self.model.tasks:
            return views
        assert self.augment.warper is not None
        turns = draw_quarter_turns(draws[0])
        rotated = rotate(first, turns, self.augment.warper, self.augment.output_size)
        return views._replace(rotated=rotated, quarter_turns=turns)

    @override
    def loss(
        self, network: nn.Module, batch: TrainBatch, prepared: SitViews, rows: slice
    ) -> Tensor:
        self._last = prepared, rows
        with self.autocast:
            losses: Tensor = network(prepared.select(rows))
        return losses.float()

    @override
    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return {**super().evaluate(model), **self._gradients()}

    def _gradients(self) -> dict[str, float]:
        """Return the encoder's gradient norm for each weighted task, averaged over ranks."""
        if self._last is None or len(self.model.tasks) < 2 or not self.config.probe.gradients:
            return {}
        views, rows = self._last

        def losses(model: nn.Module) -> Tensor:
            with self.autocast:
                losses_P: Tensor = model(views.select(rows))
            return self.model.weighted(losses_P[1:].float())

        norms_T = gradient_norms(self.model, losses, encoder=self.model.encoder)
        found = (self.ranks.sum(norms_T.double()) / self.ranks.world_size).tolist()
        return {
            f"{task}_gradient": norm for task, norm in zip(self.model.tasks, found, strict=True)
        }

    @override
    def after_step(self, step: int, total: int) -> None:
        self.model.update_teacher(step + 1, total)

    @override
    def reconstruct(
        self, model: nn.Module, ids_Bhw: Tensor, random: SampleRandom
    ) -> Reconstruction:
        assert isinstance(model, Sit)
        # Codes of other samples depend on the batch, which evaluation must not.
        alone = replace(self.config.sit.corruption, alien_prob=0.0)
        return model.reconstruct(ids_Bhw, self._corrupt(ids_Bhw, random, alone))

    def _corrupt(
        self, ids_Bhw: Tensor, random: SampleRandom, config: CorruptionConfig | None = None
    ) -> Corruption:
        return corrupt(
            ids_Bhw,
            random,
            config or self.config.sit.corruption,
            num_codes=len(self.augment.codebook),
            side=self.model.side,
        )
