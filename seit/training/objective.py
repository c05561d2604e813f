"""What a run learns: its network, its loss and its evaluation, behind one face for the loop.

Legend: B batch of a rank, P parts of the loss.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor, nn

from seit.training.config import LoopConfig
from seit.training.feeds import Feed, TrainBatch
from seit.training.precision import make_autocast
from seit.training.ranks import Ranks
from seit.training.run import Run

Result = TypeVar("Result")
"""What a finished run returns: a dataclass of figures that `run.json` keeps."""


@dataclass(frozen=True)
class LoopFigures:
    """What the loop itself has to say of a finished run.

    Attributes:
        steps: of the whole run.
        samples_per_second: training rate of this call, evaluation left out.
        data_wait_fraction: share of that time spent waiting for the next augmented batch.
        seconds: duration of this call.
        parameters: trainable parameters of what is kept.
    """

    steps: int
    samples_per_second: float
    data_wait_fraction: float
    seconds: float
    parameters: int


class Objective(ABC, Generic[Result]):
    """One objective of one run.

    Attributes:
        config: of the run.
        feed: what it is trained and evaluated on.
        ranks: of the run.
        model: what is trained, averaged and checkpointed; frozen parts of it included.
        autocast: the context of forward passes.
        parts: the names of the P parts of the loss. The first is what is minimised.
        shown: figures of an evaluation that are logged, and in which words.
    """

    parts: tuple[str, ...] = ("loss",)
    shown: ClassVar[Mapping[str, str]] = {"loss": "validation loss {:.4g}"}

    def __init__(self, config: LoopConfig, feed: Feed, ranks: Ranks, model: nn.Module) -> None:
        self.config = config
        self.feed = feed
        self.ranks = ranks
        self.model = model.to(ranks.device)
        self.autocast = make_autocast(config, ranks.device)

    def begin(self, run: Run) -> None:
        """Get ready what needs the run's folder; its files are there, no step was taken."""

    def sparse_copies(self) -> Sequence[nn.Module]:
        """Copies of the network that a sparse run holds at zero as well, from its start on."""
        return ()

    def prepare(self, batch: TrainBatch, step: int) -> Any:
        """Make what the whole batch shares, without gradients, before it is cut into parts.

        Args:
            batch: of this rank.
            step: its number, from 0.
        """

    @abstractmethod
    def loss(self, network: nn.Module, batch: TrainBatch, prepared: Any, rows: slice) -> Tensor:
        """The parts (P,) of the mean loss of some rows of a batch, float32.

        Args:
            network: ``model``, as ranks share it and as it is compiled.
            batch: of this rank.
            prepared: what :meth:`prepare` returned for it.
            rows: which samples of it.
        """

    def after_update(self, step: int, total: int) -> None:
        """Follow the optimiser's step number ``step`` (from 0) of ``total``.

        The gradients that led to it are still there.
        """

    def after_step(self, step: int, total: int) -> None:
        """Follow the weights after step number ``step`` (from 0) of ``total``."""

    @abstractmethod
    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """Figures of ``model`` (or its average) on the evaluated split, of all ranks, by name."""

    @abstractmethod
    def result(self, figures: LoopFigures) -> Result:
        """What the run came to, after the last evaluation."""

    @abstractmethod
    def kept_model(self, model: nn.Module) -> nn.Module:
        """What of ``model`` (or its average) are the weights to use."""

    @abstractmethod
    def leave(self, run: Run, model: nn.Module) -> dict[str, Any]:
        """Write what a finished run leaves behind besides its weights; on the main rank.

        Args:
            run: the folder.
            model: the trained model, or its average.

        Returns:
            What `run.json` says besides.
        """

    @abstractmethod
    def report(self, run: Run, model: nn.Module, info: Mapping[str, Any]) -> None:
        """Write `report.html`; on the main rank.

        Args:
            run: the folder, with all other files.
            model: the trained model, or its average.
            info: what `run.json` will say of the finished run.
        """
