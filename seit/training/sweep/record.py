"""`sweep.json`: what a sweep was asked for, and its trials so far."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from seit.documents import as_record, read_json
from seit.errors import UsageError
from seit.files import PARTIAL_SUFFIX, write_atomically
from seit.locks import RUN_LOCK_NAME
from seit.training.records import MAX_RECORD_BYTES
from seit.training.sweep.result import TrialResult

SWEEP_NAME = "sweep.json"


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """Contents of `sweep.json`.

    Attributes:
        plan: everything that the result depends on, as JSON.
        trials: trials so far.
        num_trained: number of trials to train, once it is decided; None before.
        status: started or finished.
        result: result of a finished sweep, without its trials.
    """

    plan: Mapping[str, Any]
    trials: tuple[TrialResult, ...] = ()
    num_trained: int | None = None
    status: str = "started"
    result: Mapping[str, Any] | None = None

    def write(self, out: Path) -> None:
        """Replace the file in a folder."""
        text = json.dumps(asdict(self), indent=2)
        write_atomically(out / SWEEP_NAME, text.encode() + b"\n")

    def with_trial(self, trial: TrialResult) -> "SweepRecord":
        """Return the record with a trial added or replaced."""
        others = [one for one in self.trials if one.number != trial.number]
        ordered = sorted([*others, trial], key=lambda one: one.number)
        return replace(self, trials=tuple(ordered))


def enter_sweep(out: Path, plan: Mapping[str, Any], *, resume: bool) -> SweepRecord:
    """Return the record of a new sweep, or that of the interrupted one in a folder.

    Raises:
        UsageError: the folder holds something else, a sweep and ``resume`` is False, or a sweep of
            another plan.
        DamagedError: the record is corrupt.
    """
    plan = json.loads(json.dumps(plan))
    path = out / SWEEP_NAME
    if not path.is_file():
        free = {RUN_LOCK_NAME, SWEEP_NAME + PARTIAL_SUFFIX}
        if {entry.name for entry in out.iterdir()} - free:
            raise UsageError(f"{out} already holds something else; choose a new --out folder")
        return SweepRecord(plan=plan)
    if not resume:
        raise UsageError(
            f"{out} already holds a sweep; pass --resume to continue it, or another --out"
        )
    found = as_record(
        read_json(path, dict, max_bytes=MAX_RECORD_BYTES), SweepRecord, origin=str(path)
    )
    different = [name for name in plan if found.plan.get(name) != plan[name]]
    if different:
        raise UsageError(
            f"{out} cannot be resumed with another {' and '.join(different)}; repeat the first "
            "command or choose another --out"
        )
    return found
