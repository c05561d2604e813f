"""Sources of a run's weights: the run it was initialized from, and its teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from seit.errors import DamagedError, UsageError
from seit.files import sha256_of
from seit.report import Section, table
from seit.training.config import LoopConfig, TrainConfig
from seit.training.run import WEIGHTS_NAME, Run

WEIGHTS_FROM, TEACHER = "weights_from", "teacher"
"""Entries of `run.json`."""
_TITLES = {WEIGHTS_FROM: "weights at the start", TEACHER: "teacher"}
_TOKEN_ADAPT = "token_adapt"  # noqa: S105
_SHOWN_DIGITS = 12


@dataclass(frozen=True)
class Origin:
    """Finished run that provided weights to another.

    Attributes:
        run: its folder, as given.
        fingerprint: sha256 of its `model.safetensors`, in hexadecimal.
        command: the command that made it: train, tune or pretrain.
        objective: its training objective.
        model: its backbone.
        steps: steps of the whole run; None if not recorded.
        store: the seal of its store.
        labels: names of the classes whose labels it learned, or the runs that its weights come
            from; None if that is not recorded.
    """

    run: str
    fingerprint: str
    command: str
    objective: str
    model: str
    steps: int | None
    store: str
    labels: tuple[str, ...] | None = None

    @property
    def summary(self) -> str:
        """Summary of the training and the beginning of the fingerprint."""
        steps = "" if self.steps is None else f", {self.steps:,} steps"
        return (
            f"{self.objective} by {self.command}, {self.model}{steps}, "
            f"sha256 {self.fingerprint[:_SHOWN_DIGITS]}…"
        )


def describe_origin(path: str | Path) -> Origin:
    """Describe a finished run whose weights are used.

    Raises:
        UsageError: there is no run, or it has not finished.
        DamagedError: its `run.json` is corrupt.
    """
    run = Run.open(path)
    info = run.info
    result = info.get("result")
    steps = result.get("steps") if isinstance(result, dict) else None
    identity = info.get("identity")
    return Origin(
        run=str(path),
        fingerprint=sha256_of(run.finished_file(WEIGHTS_NAME)),
        command=run.command,
        objective=run.objective,
        model=run.settings.model.name,
        steps=steps if isinstance(steps, int) else None,
        store=str(identity.get("store", "")) if isinstance(identity, dict) else "",
        labels=learned_labels(run),
    )


def learned_labels(run: Run) -> tuple[str, ...] | None:
    """Return the classes, sorted, whose labels a run learned, or those that its weights come from.

    None if a run before it does not say so, or if it started from pretrained weights of timm.

    Raises:
        DamagedError: its `run.json` is corrupt.
    """
    settings = run.settings
    if isinstance(settings, TrainConfig) and settings.pretrained is not None:
        return None
    names = set(run.classes if run.kind.classifies else ())
    for origin in read_origins(run.info, where=f"{run.path}/run.json").values():
        if origin.labels is None:
            return None
        names.update(origin.labels)
    return tuple(sorted(names))


def describe_origins(
    config: LoopConfig, *, init_from: Path | None, teacher: Path | None
) -> dict[str, dict[str, Any]]:
    """Describe all sources of a run's weights, as `run.json` keeps them.

    Args:
        config: settings of the run.
        init_from: the run to take initial weights from.
        teacher: the teacher's run.

    Raises:
        UsageError: a run has not finished, or a file is missing.
    """
    paths = {WEIGHTS_FROM: init_from, TEACHER: teacher}
    found = {key: asdict(describe_origin(path)) for key, path in paths.items() if path is not None}
    adapt = config.augment.token_adapt
    if adapt and Path(adapt).is_file():
        found[_TOKEN_ADAPT] = {"file": adapt, "fingerprint": sha256_of(Path(adapt))}
    return found


def check_origins(run: Run, now: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that a resumed run has the same initial weights and teacher as at its start.

    Raises:
        UsageError: one of them has changed.
    """
    info = run.info
    for key, found in now.items():
        known = info.get(key)
        if isinstance(known, dict) and known.get("fingerprint") != found["fingerprint"]:
            raise UsageError(
                f"{found.get('run', found.get('file'))} holds other weights than when {run.path} "
                "was started with it; put those back, or choose another --out"
            )


def read_origins(info: Mapping[str, Any], *, where: str) -> dict[str, Origin]:
    """Return the origins in a `run.json`, by entry; none for older runs.

    Raises:
        DamagedError: an entry is corrupt.
    """
    try:
        return {key: msgspec.convert(info[key], Origin) for key in _TITLES if info.get(key)}
    except msgspec.ValidationError as error:
        raise DamagedError(f"{where} is damaged ({error}); restore it from a copy") from error


def origin_sections(info: Mapping[str, Any], *, where: str) -> Sequence[Section]:
    """Return a report section of the origins; none for a run trained from scratch."""
    rows = [
        [_TITLES[key], one.run, one.summary, one.store[:_SHOWN_DIGITS]]
        for key, one in read_origins(info, where=where).items()
    ]
    if not rows:
        return ()
    header = ["what", "run", "learned", "store (seal)"]
    return (Section("Where the weights come from", table(rows, header=header)),)
