"""`seit tune`: a classification run that trains few weights of a pretrained backbone.

Legend: B batch, P parts of the loss.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from seit.documents import as_record
from seit.errors import UsageError
from seit.models import Tuning, is_of_head, make_tuning, save_adapter
from seit.progress import Progress
from seit.report import Bar, Section, bar_chart, table
from seit.shards import Store, as_store
from seit.training.classify import CLASSIFIER_FILES, Classifying, TrainResult, teacher_of
from seit.training.feeds import TrainBatch
from seit.training.initialize import starting_from
from seit.training.launch import run_objective
from seit.training.objective import LoopFigures
from seit.training.ranks import Ranks
from seit.training.run import Run
from seit.training.tuning.config import TuneConfig

ADAPTER_NAME = "adapter.safetensors"
"""Trained weights, without the backbone's; see `seit.models.tuning.load_adapter`."""


@dataclass(frozen=True, kw_only=True, repr=False)
class TuneResult(TrainResult):
    """Result of a tuning run.

    ``parameters`` counts those of the saved model, including frozen ones.

    Attributes:
        trained_parameters: parameters with gradients at the start, including the classifier's.
        tuning_parameters: the method's parameters at the end, without the classifier's.
        head_parameters: parameters of the classifier.
        ranks: rank of each low-rank delta, by the layer's name; empty for other methods.
        layer_shares: share of each layer in the learned average of `weighted-sum`, summing to 1;
            empty for other methods.
    """

    trained_parameters: int
    tuning_parameters: int
    head_parameters: int
    ranks: dict[str, int]
    layer_shares: dict[str, float] = field(default_factory=dict)


def tune(
    config: TuneConfig,
    store: Store | str | Path,
    *,
    out: str | Path,
    init_from: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> TuneResult:
    """Tune the backbone of a finished run on ``store`` and write a run folder to ``out``.

    Its `adapter.safetensors` holds the trained weights of the method and the classifier. Its
    `model.safetensors` holds plain timm weights if the method can be folded into them, else those
    of the model with its modules.

    Arguments and errors are those of :func:`seit.training.train`. The run of ``init_from`` is also
    needed to resume, as an adapter belongs to one backbone.

    Raises:
        UsageError: also if no run is named to start from, or the method does not fit its backbone.
    """
    opened = as_store(store)
    settled = starting_from(config, init_from)
    if settled.init_from is None:
        raise UsageError("--init-from is missing; name the finished run whose backbone to tune")
    return run_objective(
        lambda ranks, _: TunedClassification(settled, opened, ranks, init_from=settled.init_from),
        settled,
        opened,
        out=Path(out),
        resume=resume,
        files=(*CLASSIFIER_FILES, ADAPTER_NAME),
        teacher=teacher_of(settled),
        keeps_start=True,
        recorded=lambda figures: as_record(figures, TuneResult, origin=f"the result in {out}"),
        progress=progress,
    )


class TunedClassification(Classifying[TuneResult]):
    """Classification in which a tuning method decides what is trained."""

    config: TuneConfig

    def __init__(
        self, config: TuneConfig, store: Any, ranks: Ranks, *, init_from: str | Path | None
    ) -> None:
        super().__init__(config, store, ranks, init_from=init_from)
        self.tuning = make_tuning(config.tuning)
        self.tuning.attach(self.model)
        self._shares: dict[str, float] = {}
        if self.tuning.penalty() is not None:
            self.parts = ("loss", "penalty")

    @override
    def loss(
        self, network: nn.Module, batch: TrainBatch, prepared: Tensor | None, rows: slice
    ) -> Tensor:
        losses_P = super().loss(network, batch, prepared, rows)
        penalty = self.tuning.penalty()
        if penalty is None:
            return losses_P
        return torch.stack([losses_P[0] + penalty, penalty])

    @override
    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        self._shares = self._of(model).layer_shares()
        return super().evaluate(model)

    @override
    def after_update(self, step: int, total: int) -> None:
        self.tuning.after_update(step, total)

    @override
    def kept_model(self, model: nn.Module) -> nn.Module:
        if not self.tuning.mergeable:
            return model
        kept = copy.deepcopy(model)
        self._of(model).bind(kept).merge()
        return kept

    @override
    def result(self, figures: LoopFigures) -> TuneResult:
        kept = sum(one.numel() for one in self.kept_model(self.model).parameters())
        named = self.model.named_parameters()
        statistics = self.tuning.statistics().keys()
        state = self.tuning.kept_state().items()
        return TuneResult(
            **self.figures(replace(figures, parameters=kept)),
            trained_parameters=sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            tuning_parameters=sum(one.numel() for key, one in state if key not in statistics),
            head_parameters=sum(one.numel() for key, one in named if is_of_head(self.model, key)),
            ranks=self.tuning.ranks(),
            layer_shares=self._shares,
        )

    @override
    def leave(self, run: Run, model: nn.Module) -> dict[str, Any]:
        save_adapter(run.path / ADAPTER_NAME, model, self._of(model))
        return super().leave(run, model)

    @override
    def sections(self) -> Sequence[Section]:
        ranks = self.tuning.ranks()
        found = []
        if ranks:
            rows = [[name, rank] for name, rank in ranks.items()]
            found.append(Section("Ranks", table(rows, header=["layer", "rank"])))
        if self._shares:
            bars = [Bar(name, share) for name, share in self._shares.items()]
            chart = bar_chart(bars, title="Learned average of layers", unit_label="share")
            found.append(Section("Layers", chart))
        return found

    def _of(self, model: nn.Module) -> Tuning:
        """Return the tuning of the model, or of its average."""
        return self.tuning if model is self.model else self.tuning.bind(model)
