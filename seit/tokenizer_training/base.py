"""Shared settings, loop and run folder for training tokenizers and TokenAdapt."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from typing_extensions import override

from seit.config import build, flatten, to_mapping
from seit.errors import SeitError, UsageError
from seit.locks import locked_folder
from seit.progress import Progress
from seit.shards import Store
from seit.tokenizer_training.report import write_training_report
from seit.training import (
    Inputs,
    Loop,
    Ranks,
    Run,
    RunConfig,
    Update,
    describe_figures,
    environment,
    withdrawn_if_refused,
)

_OF_THE_MACHINE = frozenset({"checkpoint_every", "device", "log_every", "loggers"})
"""Settings that a resumed training may change."""
_CLIP_GRAD = 1.0
Batch = TypeVar("Batch")


@dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """Settings shared by both trainings.

    Attributes:
        batch_size: crops or images per step.
        steps: steps of AdamW.
        lr: peak learning rate, between a linear warm-up and a cosine to 0.
        warmup_steps: steps of the warm-up.
        checkpoint_every: steps between checkpoints.
        log_every: steps between lines of the metrics.
        loggers: further loggers: tensorboard, wandb, trackio, mlflow; `auto` is TensorBoard if it
            is installed.
        seed: seed for weights and data.
        device: cpu, cuda, cuda:1, mps or auto.
    """

    batch_size: int = 16
    steps: int = 20_000
    lr: float = 1e-3
    warmup_steps: int = 200
    checkpoint_every: int = 500
    log_every: int = 50
    loggers: tuple[str, ...] = ("auto",)
    seed: int = 0
    device: str = "auto"

    def rate(self, step: int) -> float:
        """Return the learning rate of step number ``step`` (from 0)."""
        warmup = min(self.warmup_steps, self.steps - 1)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        progress = math.pi * (step - warmup) / (self.steps - warmup)
        return self.lr * (1 + math.cos(progress)) / 2

    def differences(self, earlier: Mapping[str, Any]) -> list[str]:
        """Return the names of settings that differ from those of a saved config.

        Ignores machine settings; settings added since then count with their defaults.

        Raises:
            UsageError: the saved values are not such a config.
        """
        begun = build(type(self), earlier, origin="the config that was saved")
        mine, theirs = flatten(to_mapping(self)), flatten(to_mapping(begun))
        return [
            f"{name} was {theirs[name]!r} and is {mine[name]!r}"
            for name in sorted(mine)
            if mine[name] != theirs[name] and name not in _OF_THE_MACHINE
        ]


class BaseLoop(Loop[Batch], Generic[Batch]):
    """Loop of both trainings, in one process."""

    remedy = "lower lr"

    def __init__(
        self,
        config: BaseConfig,
        run: Run,
        device: torch.device,
        progress: Progress | None,
        *,
        parts: tuple[str, ...] = ("loss",),
    ) -> None:
        cadence = RunConfig(
            log_every=config.log_every,
            checkpoint_every=config.checkpoint_every,
            loggers=config.loggers,
        )
        super().__init__(run, config, cadence, Ranks(0, 1, device), progress, parts=parts)
        self.settings = config
        self.device = device
        self.total, self.batch_size = config.steps, config.batch_size
        self.update = Update(clip_grad=_CLIP_GRAD)

    @override
    def rate(self, step: int) -> float:
        return self.settings.rate(step)

    def check_figures(self, result: Mapping[str, Any]) -> dict[str, float]:
        """Return the numbers of a result; raise SeitError if one is not finite."""
        known = {name: one for name, one in result.items() if isinstance(one, int | float)}
        what = describe_figures(known)
        if what is not None:
            raise SeitError(f"{what}; {self.remedy} and start again")
        return known

    def leave(self, result: Mapping[str, Any], *, title: str) -> None:
        """Write the report and result of a training; raise SeitError if a figure is not finite."""
        known = self.check_figures(result)
        info = {**self.run.info, "result": result, "environment": environment(self.device)}
        write_training_report(self.run, self.settings, info, title=title)
        self.run.write_info({**info, "status": "finished"})
        self.journal.close(known)


@contextmanager
def entered(
    folder: Path,
    config: BaseConfig,
    source: Store | Inputs,
    *,
    resume: bool,
    begins: Mapping[str, Any],
    prepare: Callable[[], None],
) -> Iterator[Run]:
    """Lock the run folder of a new training, or with ``resume`` of one with the same settings.

    A new folder is removed if the training fails before its first checkpoint.

    Args:
        folder: run folder.
        config: settings.
        source: training data.
        resume: whether the folder may hold a run.
        begins: fingerprints of other inputs, for `run.json`.
        prepare: called first, while the folder is locked.

    Raises:
        UsageError: the folder holds something else, or a training with other settings or inputs.
    """
    with locked_folder(folder):
        prepare()
        is_new = not Run.exists(folder)
        run = Run.start(folder, config, source, resume=resume, notes=begins)
        for name, value in begins.items():
            if run.info.get(name) != value:
                raise UsageError(
                    f"{folder} was started with another {name}; pass the same as before, or choose "
                    "another folder"
                )
        with withdrawn_if_refused(run, is_new=is_new):
            yield run
