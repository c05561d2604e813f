"""Replay file of a run whose loss, weights or outputs are no longer finite.

``failure.safetensors`` holds the inputs, labels and weights of the first batch whose loss was not
finite, or whose update ruined the weights. Its metadata hold that step, the finding, the losses of
the steps before, the learning rate, the samples' keys, and the checkpoint from which to reproduce
the failure.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from seit.errors import SeitError
from seit.tensors import first_not_finite, write_tensors
from seit.training.run import FAILURE_NAME, Run


@dataclass(frozen=True)
class Failure:
    """First non-finite value of a run.

    Attributes:
        what: description, such as ``the training loss became nan``.
        step: number (from 0) of the step whose loss or update it is.
        losses: known losses up to and including that step, the latest last.
    """

    what: str
    step: int
    losses: Sequence[float]


class NotFiniteError(Exception):
    """A value is not finite; the argument is the :class:`Failure`."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.what)
        self.failure = failure


def first_failure(losses: Sequence[float]) -> int | None:
    """Return the index of the first loss that is not finite."""
    return next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)


def describe_ruin(*models: nn.Module | None) -> str | None:
    """Describe which weights are not finite; None if all are finite."""
    for model in models:
        name = None if model is None else first_not_finite(model.state_dict())
        if name is not None:
            return f"the weights {name} are no longer finite"
    return None


def describe_figures(figures: Mapping[str, float]) -> str | None:
    """Describe which metric of an evaluation is not finite; None if all are finite."""
    name = next((key for key, value in figures.items() if not math.isfinite(value)), None)
    return None if name is None else f"the evaluated {name} became {figures[name]}"


def write_failure(
    run: Run,
    failure: Failure,
    tensors: Mapping[str, Tensor],
    *,
    keys: Sequence[str],
    rate: float,
    checkpoint: Path | None,
    remedy: str,
) -> SeitError:
    """Write a batch to the replay file and return the error to raise.

    Args:
        run: the run folder to write to.
        failure: the finding.
        tensors: the batch.
        keys: keys of its samples.
        rate: the step's learning rate.
        checkpoint: the last checkpoint.
        remedy: what to change before the next start.
    """
    card = {
        "step": failure.step,
        "found": failure.what,
        "losses": [repr(loss) for loss in failure.losses],
        "lr": rate,
        "keys": list(keys),
        "checkpoint": None if checkpoint is None else str(checkpoint),
    }
    path = run.path / FAILURE_NAME
    write_tensors(path, tensors, card=card)
    return SeitError(
        f"{failure.what} at step {failure.step + 1}; {remedy}, and start again "
        f"({path} holds the batch)"
    )
