"""The replay file of a run whose loss, weights or outputs are no longer finite.

``failure.safetensors`` holds the inputs, labels and weights of the first batch whose loss was not
finite, or whose update ruined the weights; its metadata say which step that was, what was found,
the losses of the steps before, the learning rate, the samples' keys, and the checkpoint to start
from in order to see it happen again.
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
    """The first thing that is not finite.

    Attributes:
        what: of which it was found, such as ``the training loss became nan``.
        step: number (from 0) of the step whose loss or update it is.
        losses: of the steps up to and with that one, as far as they are known, the latest last.
    """

    what: str
    step: int
    losses: Sequence[float]


class NotFiniteError(Exception):
    """Something is not finite; its argument is the :class:`Failure`."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.what)
        self.failure = failure


def first_failure(losses: Sequence[float]) -> int | None:
    """The number of the first loss that is not finite."""
    return next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)


def describe_ruin(*models: nn.Module | None) -> str | None:
    """Say which weights of networks are not finite; None where all are."""
    for model in models:
        name = None if model is None else first_not_finite(model.state_dict())
        if name is not None:
            return f"the weights {name} are not finite any more"
    return None


def describe_figures(figures: Mapping[str, float]) -> str | None:
    """Say which figure of an evaluation is not finite; None where all are."""
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
    """Write a batch to the replay file; returns the error to raise.

    Args:
        run: whose folder it goes to.
        failure: what was found.
        tensors: the batch.
        keys: of its samples.
        rate: the step's learning rate.
        checkpoint: the last one that was written.
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
