"""A trial: one draw of settings, its size, and its run up to a step."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from seit.config import build, merge, nest, to_mapping
from seit.errors import SeitError, UsageError
from seit.progress import Progress
from seit.shards import Store
from seit.training.checkpoint import list_checkpoints
from seit.training.classify import pixels_per_token, train
from seit.training.config import TrainConfig
from seit.training.feeds import make_augment
from seit.training.flops import count_flops
from seit.training.networks import build_model
from seit.training.run import FAILURE_NAME, Run

DEV = "dev"
"""Split of the samples that trials are judged on."""
Score = tuple[float, float]
"""Top-1 accuracy, 0–1, and loss in nats."""
WORST: Score = (-math.inf, math.inf)


class Paused(Exception):  # noqa: N818 - no error: the run continues from its checkpoint
    """The run has reached the step at which it is judged."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """Size of a trial's network.

    Attributes:
        bytes: bytes of its weights in float32.
        flops: operations of a forward pass of one sample.
    """

    bytes: int
    flops: int


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A draw of settings.

    Attributes:
        number: its number.
        settings: the drawn settings, by dotted name.
        config: all settings.
        folder: folder of its run.
    """

    number: int
    settings: Mapping[str, Any]
    config: TrainConfig
    folder: Path

    def size(self, store: Store) -> Size:
        """Build the network and measure it.

        Raises:
            UsageError: the settings give no network.
        """
        augment = make_augment(store, self.config, torch.device("cpu"), with_train=False)
        try:
            model = build_model(
                self.config.model,
                augment,
                num_classes=len(store.classes),
                patch_size=pixels_per_token(store),
            )
        except (AssertionError, ValueError, RuntimeError) as error:  # timm's checks of sizes
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise UsageError(f"the settings give no network: {reason}") from error
        flops = count_flops(model, (augment.channels, *augment.output_size))
        weights = model.state_dict().values()
        return Size(bytes=sum(one.nbytes for one in weights), flops=flops.forward)

    def train_to(self, step: int, store: Store, progress: Progress | None) -> tuple[Score, float]:
        """Train to a step, from the latest checkpoint on; return the score there, and the seconds.

        A run that diverges has the worst score.

        Raises:
            UsageError: training refuses the settings; there is no run unless it had begun.
            SeitError: a file cannot be written.
            KeyboardInterrupt: at SIGINT or SIGTERM.
        """
        started = time.perf_counter()
        if (self.folder / FAILURE_NAME).is_file():
            return WORST, 0.0
        if not self._has_reached(step):

            def pause(done: int, total: int, latest: Mapping[str, float]) -> None:
                if progress is not None:
                    progress(done, total, latest)
                if done == step < total:
                    raise Paused

            try:
                train(self.config, store, out=self.folder, resume=True, progress=pause)
            except Paused:
                pass
            except SeitError:
                if not (self.folder / FAILURE_NAME).is_file():
                    raise
                return WORST, time.perf_counter() - started
        return self._score(step), time.perf_counter() - started

    @property
    def has_begun(self) -> bool:
        """True if there is a run; one that is refused before its first checkpoint is removed."""
        return Run.exists(self.folder)

    def _has_reached(self, step: int) -> bool:
        """Return whether a checkpoint lies at the step or behind it, or the run has finished."""
        if not self.has_begun:
            return False
        run = Run(self.folder)
        is_done = run.info["status"] == "finished"
        last = self.config.schedule.steps == step
        saved = [int(path.stem.rpartition("-")[2]) for path in list_checkpoints(run.checkpoints)]
        return is_done or (not last and any(mark >= step for mark in saved))

    def _score(self, step: int) -> Score:
        """Return the score at a step, from the metrics of the run."""
        found = [
            entry
            for entry in Run(self.folder).metrics()
            if entry["split"] == "val" and entry["step"] == step
        ]
        if not found:
            raise SeitError(f"{self.folder} has no evaluation at step {step}; remove it and resume")
        return float(found[-1]["top1"]), float(found[-1]["loss"])


def make_trial(
    number: int, settings: Mapping[str, Any], base: TrainConfig, *, unit: int, out: Path
) -> Trial:
    """Return a trial of settings, over those of a recipe.

    Args:
        number: its number.
        settings: the drawn settings, by dotted name.
        base: all other settings.
        unit: steps between evaluations.
        out: folder of the sweep.

    Raises:
        UsageError: the settings do not fit together.
    """
    origin = f"trial {number}"
    body = merge(to_mapping(base), nest(dict(settings), origin=origin))
    config = build(TrainConfig, body, origin=origin)
    config = replace(
        config,
        data=replace(config.data, val_split=DEV),
        run=replace(config.run, eval_every=unit, checkpoint_every=0),
    )
    return Trial(
        number=number,
        settings=settings,
        config=config,
        folder=out / f"trial-{number:03d}",
    )
