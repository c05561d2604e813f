"""Result of a sweep, as `sweep.json` and `seit sweep --json` hold it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from seit.outcomes import Outcome

Status = Literal["refused", "too large", "drawn", "trained", "diverged"]


@dataclass(frozen=True, kw_only=True)
class Judgment:
    """Score of a trial at a rung.

    Attributes:
        top1: accuracy on the held-out samples, 0–1; None if the run diverged.
        loss: cross-entropy there, in nats; None likewise.
        seconds: duration of the training since the last rung.
    """

    top1: float | None
    loss: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """A trial.

    Attributes:
        number: its number.
        settings: the drawn settings, by dotted name.
        status: refused (the settings give no network, or training refuses them), too large, drawn
            (and not trained, for lack of time), trained (to the last of its rungs) or diverged.
        reason: why it was refused or is too large; empty otherwise.
        bytes: bytes of its weights in float32; None if the settings give no network.
        flops: operations of a forward pass of one sample; None likewise.
        judgments: scores by the step of the rung.
    """

    number: int
    settings: Mapping[str, Any]
    status: Status
    reason: str = ""
    bytes: int | None = None
    flops: int | None = None
    judgments: Mapping[str, Judgment] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Steps that it was trained for."""
        return max(map(int, self.judgments), default=0)

    @property
    def last(self) -> Judgment | None:
        """Score at the last of its rungs; None if it was not trained."""
        return self.judgments[str(self.steps)] if self.judgments else None


@dataclass(frozen=True, kw_only=True, repr=False)
class SweepResult(Outcome):
    """Result of a sweep.

    Attributes:
        best: number of the winner.
        settings: its drawn settings, by dotted name.
        dev_top1: its accuracy on the samples held out of the training split, 0–1; the highest of
            many, so biased upwards.
        dev_samples: number of these samples.
        top1: its accuracy on the validation split, 0–1, which nothing was chosen by.
        loss: its loss there, in nats.
        val_samples: labeled samples of that split.
        steps: steps of all trials.
        seconds: duration of their training.
        rungs: steps at which trials were judged.
        recipe: file of the winner's settings.
        trials: all trials, in the order of their numbers.
    """

    best: int
    settings: Mapping[str, Any]
    dev_top1: float
    dev_samples: int
    top1: float
    loss: float
    val_samples: int
    steps: int
    seconds: float
    rungs: tuple[int, ...]
    recipe: Path
    trials: tuple[TrialResult, ...]
