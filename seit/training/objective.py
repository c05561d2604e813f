"""Training objectives: network, loss and evaluation behind one interface for the loop.

Legend: B batch of a rank, P parts of the loss.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor, nn

from seit.training.config import LoopConfig
from seit.training.feeds import Feed, TrainBatch
from seit.training.footprint import footprint_record
from seit.training.precision import choose_attention, make_autocast
from seit.training.ranks import Ranks
from seit.training.run import Run

Result = TypeVar("Result")
"""Result of a finished run: a dataclass of figures, stored in `run.json`."""


@dataclass(frozen=True)
class LoopFigures:
    """Figures of a finished run that the loop itself measures.

    Attributes:
        steps: steps of the whole run.
        samples_per_second: training rate of this call, without evaluation.
        data_wait_fraction: fraction of that time spent waiting for the next augmented batch.
        seconds: duration of this call.
        parameters: trainable parameters of the saved model.
    """

    steps: int
    samples_per_second: float
    data_wait_fraction: float
    seconds: float
    parameters: int


class Objective(ABC, Generic[Result]):
    """Objective of a run.

    Attributes:
        config: settings of the run.
        feed: training and evaluation batches.
        ranks: ranks of the run.
        model: the trained, averaged and checkpointed network, including frozen parts.
        autocast: the context of forward passes.
        parts: names of the P parts of the loss. The first is minimized.
        shown: evaluation metrics to log, and how to label them.
    """

    parts: tuple[str, ...] = ("loss",)
    shown: ClassVar[Mapping[str, str]] = {"loss": "validation loss {:.4g}"}

    def __init__(self, config: LoopConfig, feed: Feed, ranks: Ranks, model: nn.Module) -> None:
        self.config = config
        self.feed = feed
        self.ranks = ranks
        self.model = model.to(ranks.device)
        choose_attention(model, config, ranks.device)
        self.autocast = make_autocast(config, ranks.device)

    def begin(self, run: Run) -> None:
        """Prepare whatever needs the run folder; its files exist, but no step has been taken."""

    def sparse_copies(self) -> Sequence[nn.Module]:
        """Return copies of the network that a sparse run also masks, from its start on."""
        return ()

    def prepare(self, batch: TrainBatch, step: int) -> Any:
        """Compute what the whole batch shares, without gradients, before it is split into parts.

        Args:
            batch: the batch of this rank.
            step: the number of the step, from 0.
        """

    @abstractmethod
    def loss(self, network: nn.Module, batch: TrainBatch, prepared: Any, rows: slice) -> Tensor:
        """Return the parts (P,) of the mean loss of some rows of a batch, float32.

        Args:
            network: ``model``, possibly compiled and wrapped for several ranks.
            batch: the batch of this rank.
            prepared: the result of :meth:`prepare` for it.
            rows: the selected samples.
        """

    def after_update(self, step: int, total: int) -> None:
        """Run after update ``step`` (from 0) of ``total``, before gradients are cleared."""

    def after_step(self, step: int, total: int) -> None:
        """Run after step ``step`` (from 0) of ``total``."""

    @abstractmethod
    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """Return metrics of ``model`` (or its average) on the evaluated split, over all ranks."""

    @abstractmethod
    def result(self, figures: LoopFigures) -> Result:
        """Return the result of the run, after the last evaluation."""

    @abstractmethod
    def kept_model(self, model: nn.Module) -> nn.Module:
        """Return the part of ``model`` (or its average) whose weights are saved."""

    def save_weights(self, run: Run, model: nn.Module) -> None:
        """Write the weights of ``model`` (or its average), on the main rank."""
        run.save_weights(self.kept_model(model))

    def footprint(self, run: Run, model: nn.Module) -> dict[str, Any]:
        """Return the entry of `run.json` on the footprint of the weights that were written."""
        return footprint_record(run, self.kept_model(model), self.feed.input_shape)

    @abstractmethod
    def leave(self, run: Run, model: nn.Module) -> dict[str, Any]:
        """Write the files of a finished run other than its weights, on the main rank.

        Args:
            run: the folder.
            model: the trained model, or its average.

        Returns:
            Additional entries of `run.json`.
        """

    @abstractmethod
    def report(self, run: Run, model: nn.Module, info: Mapping[str, Any]) -> None:
        """Write `report.html`, on the main rank.

        Args:
            run: the folder, with all other files.
            model: the trained model, or its average.
            info: contents of the finished run's `run.json`.
        """
