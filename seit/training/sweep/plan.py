"""Plan of a sweep: everything that is checked before its store is read."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seit.devices import choose_device
from seit.errors import UsageError
from seit.training.config import TrainConfig
from seit.training.sweep.extent import SweepConfig
from seit.training.sweep.rungs import Rungs
from seit.training.sweep.space import Space


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """Checked settings of a sweep.

    Attributes:
        config: settings of all trials but those of the space.
        space: values of the settings to search.
        extent: extent of the sweep.
        rungs: steps at which trials are judged.
        trials: most trials to train: as many as asked for, or as a budget of steps pays for.
    """

    config: TrainConfig
    space: Space
    extent: SweepConfig
    rungs: Rungs
    trials: int

    def record(self) -> dict[str, Any]:
        """Return space, extent, rungs, their numbers of trials, and steps as built-in values.

        A budget of seconds may end the sweep with fewer trials and steps.
        """
        return {
            "space": self.space.describe(),
            **asdict(self.extent),
            "trials": self.trials,
            "rungs": list(self.rungs.marks),
            "trials_at_rungs": list(self.rungs.survivors(self.trials)),
            "steps": self.rungs.cost(self.trials),
        }


def plan_sweep(
    config: TrainConfig, *, space: str | Path | Mapping[str, Any], extent: SweepConfig | None = None
) -> SweepPlan:
    """Check all of a sweep that does not take its store.

    Raises:
        UsageError: space, settings and extent do not fit together, or no trial fits the budget.
    """
    extent = extent or SweepConfig()
    _check_settings(config)
    found = Space.read(space)
    assert config.schedule.steps is not None
    rungs = Rungs(steps=config.schedule.steps, count=extent.rungs, reduction=extent.reduction)
    limit, trials = extent.budget_steps, extent.trials
    if limit is not None:
        trials = rungs.affordable(limit, most=trials)
    return SweepPlan(config=config, space=found, extent=extent, rungs=rungs, trials=trials)


def _check_settings(config: TrainConfig) -> None:
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError("a sweep runs in one process; start it without torchrun")
    if config.schedule.steps is None:
        raise UsageError("a sweep counts in steps, and the settings count epochs; pass --steps")
    if config.data.pixels is not None:
        raise UsageError("a sweep takes tokens, and data.pixels names images; leave it out")
    choose_device(config.run.device)
