"""What a run leaves behind when its loss is not finite any more.

``failure.safetensors`` holds the inputs, labels and weights of the first batch whose loss was not
finite; its metadata say which step that was, the losses of the steps before, the learning rate,
the samples' keys, and the checkpoint to start from in order to see it happen again.
"""

import json
import math
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from safetensors.torch import save

from seit.errors import SeitError
from seit.files import write_atomically
from seit.shards import Split
from seit.train.feeds import Feed
from seit.train.run import Run

FAILURE_NAME = "failure.safetensors"


def first_failure(losses: Sequence[float]) -> int | None:
    """The number of the first loss that is not finite."""
    return next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)


def report_failure(
    run: Run,
    feed: Feed,
    split: Split,
    *,
    step: int,
    losses: Sequence[float],
    rate: float,
    checkpoint: Path | None,
) -> SeitError:
    """Write the replay file of a run; returns the error to raise.

    Args:
        run: whose folder it goes to.
        feed: of the run.
        split: that it trains on.
        step: number (from 0) of the first step whose loss was not finite.
        losses: of the steps up to and with that one, the latest last.
        rate: its learning rate.
        checkpoint: the last one that was written.
    """
    with closing(feed.train_batches(step)) as batches:
        batch = next(batches)
    keys = split.keys
    metadata = {
        "step": step,
        "losses": [repr(loss) for loss in losses],
        "lr": rate,
        "keys": [keys[row] for row in batch.rows.tolist()],
        "checkpoint": None if checkpoint is None else str(checkpoint),
    }
    tensors = {
        "inputs": batch.augmented.inputs,
        "labels": batch.augmented.labels,
        "partner_labels": batch.augmented.partner_labels,
        "weight": batch.augmented.weight,
        "rows": batch.rows,
    }
    path = run.path / FAILURE_NAME
    data = save(
        {key: value.cpu().contiguous() for key, value in tensors.items()},
        {"seit": json.dumps(metadata)},
    )
    write_atomically(path, data)
    return SeitError(
        f"the training loss became {losses[-1]} at step {step + 1}; lower optim.lr or set "
        f"optim.clip_grad, and start again ({path} holds the batch)"
    )
