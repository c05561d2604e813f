"""Loggers of a run's metrics, in addition to `metrics.jsonl`.

Each is an optional package, imported on use. A logger cannot stop a training run: one that cannot
start is left out, and one that fails is disabled, with a warning.
"""

import json
import os
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from seit.config import flatten
from seit.documents import read_json
from seit.errors import SeitError, UsageError
from seit.files import write_atomically

TENSORBOARD_FOLDER = "tensorboard"
LOGGERS_NAME = "loggers.json"
"""File in the run folder with the run's id at each service."""
MAX_IDS_BYTES = 1 << 16
DEFAULT_PROJECT = "seit"
_MAX_PARAMS = 100
"""Maximum number of parameters in one MLflow request."""
_MAX_PARAM_CHARACTERS = 500
_MAX_REASON = 200
"""Maximum number of characters of an error in a warning."""


class Logger(Protocol):
    """Receiver of a run's metrics."""

    def log(self, step: int, split: str, figures: Mapping[str, float]) -> None:
        """Log the metrics of ``split`` after ``step`` steps."""

    def finish(self, result: Mapping[str, float] | None) -> None:
        """Close the run, with its result, or None if it was interrupted."""


def make_loggers(
    names: Sequence[str], run_folder: Path, config_mapping: Mapping[str, Any], *, step: int = 0
) -> tuple[Logger, ...]:
    """Open the loggers of a run, each once; one that cannot start is left out with a warning.

    Args:
        names: any of `tensorboard`, `wandb`, `trackio`, `mlflow` and `auto`, which is `tensorboard`
            if it is installed and nothing otherwise.
        run_folder: the run's folder; `tensorboard` writes into it, the others store their ids of
            the run there, under which a resumed run continues.
        config_mapping: the run's settings, nested.
        step: step from which the run continues; metrics logged after it are replaced.

    Raises:
        UsageError: a name is invalid, or its package is not installed.
        DamagedError: the stored ids are corrupt.
    """
    unknown = [name for name in names if name != "auto" and name not in _KINDS]
    if unknown:
        raise UsageError(
            f"run.loggers names {unknown[0]!r}; there are auto, {', '.join(_KINDS)}, and [] for "
            "none"
        )
    wanted = dict.fromkeys(names)
    if "auto" in wanted:
        wanted = dict.fromkeys([*wanted, *(["tensorboard"] if _has_tensorboard() else [])])
        del wanted["auto"]
    modules = {name: _import(name) for name in wanted}
    ids = _Ids(run_folder)
    started = []
    for name, module in modules.items():
        try:
            logger = _KINDS[name](module, ids, config_mapping, step)
        except SeitError:
            raise
        except Exception as error:
            _warn(f"the logger {name} did not start and is left out", error)
        else:
            started.append(_Guarded(name, logger))
    return tuple(started)


class _Ids:
    """File in the run folder with the run's id at each service."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / LOGGERS_NAME

    @property
    def run_name(self) -> str:
        """Name of the run's folder."""
        return self.folder.resolve().name

    def get(self, service: str) -> str | None:
        """Return the id of the run at ``service``, None for a new run."""
        return self._read().get(service)

    def keep(self, service: str, number: str) -> None:
        """Store an id."""
        text = json.dumps({**self._read(), service: number}, indent=2) + "\n"
        write_atomically(self._path, text.encode())

    def _read(self) -> dict[str, str]:
        if not self._path.exists():
            return {}
        found: dict[str, str] = read_json(
            self._path, dict[str, str], max_bytes=MAX_IDS_BYTES, advice="remove it"
        )
        return found


class _TensorBoard:
    """Event files in the run folder; a resumed run replaces events after its step."""

    def __init__(self, module: Any, ids: _Ids, config: Mapping[str, Any], step: int) -> None:
        self._writer = module.SummaryWriter(
            str(ids.folder / TENSORBOARD_FOLDER), purge_step=step + 1 if step else None
        )
        if not step:
            lines = [f"    {name}: {value}" for name, value in flatten(config).items()]
            self._writer.add_text("settings", "\n".join(lines), 0)

    def log(self, step: int, split: str, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(f"{split}/{name}", value, step)
        self._writer.flush()  # keeps the events of a killed run, as metrics.jsonl does its lines

    def finish(self, result: Mapping[str, float] | None) -> None:
        del result
        self._writer.close()


class _WandB:
    """Weights & Biases; respects WANDB_PROJECT, WANDB_ENTITY and WANDB_MODE."""

    def __init__(self, module: Any, ids: _Ids, config: Mapping[str, Any], step: int) -> None:
        del step  # values logged again are identical
        self._run = module.init(
            project=os.environ.get("WANDB_PROJECT", DEFAULT_PROJECT),
            name=ids.run_name,
            dir=str(ids.folder),
            config=dict(config),
            id=ids.get("wandb"),
            resume="allow",
        )
        ids.keep("wandb", str(self._run.id))

    def log(self, step: int, split: str, figures: Mapping[str, float]) -> None:
        self._run.log(_prefixed(split, figures), step=step)

    def finish(self, result: Mapping[str, float] | None) -> None:
        if result is not None:
            self._run.summary.update(_prefixed("result", result))
        self._run.finish(exit_code=int(result is None))


class _Trackio:
    """Trackio, which identifies a run by its name; respects TRACKIO_SPACE_ID and the like."""

    def __init__(self, module: Any, ids: _Ids, config: Mapping[str, Any], step: int) -> None:
        del step
        name = ids.get("trackio") or f"{ids.run_name}-{secrets.token_hex(4)}"
        ids.keep("trackio", name)
        self._run = module.init(
            project=os.environ.get("TRACKIO_PROJECT", DEFAULT_PROJECT),
            name=name,
            config=dict(config),
            resume="allow",
            embed=False,
        )

    def log(self, step: int, split: str, figures: Mapping[str, float]) -> None:
        self._run.log(_prefixed(split, figures), step=step)

    def finish(self, result: Mapping[str, float] | None) -> None:
        if result is not None:
            self._run.log(_prefixed("result", result))
        self._run.finish()


class _MLflow:
    """MLflow; respects MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME."""

    def __init__(self, module: Any, ids: _Ids, config: Mapping[str, Any], step: int) -> None:
        del step
        self._module = module
        known = ids.get("mlflow")
        if known is None:
            experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", DEFAULT_PROJECT)
            if "MLFLOW_EXPERIMENT_ID" not in os.environ:
                module.set_experiment(experiment)
            self._id = str(module.start_run(run_name=ids.run_name).info.run_id)
            ids.keep("mlflow", self._id)
            self._log_settings(config)
        else:
            self._id = known
            module.start_run(run_id=known)

    def log(self, step: int, split: str, figures: Mapping[str, float]) -> None:
        self._module.log_metrics(_prefixed(split, figures), step=step, run_id=self._id)

    def finish(self, result: Mapping[str, float] | None) -> None:
        if result is not None:
            self._module.log_metrics(_prefixed("result", result), run_id=self._id)
        self._module.end_run("KILLED" if result is None else "FINISHED")

    def _log_settings(self, config: Mapping[str, Any]) -> None:
        settings = [
            (name, str(value)[:_MAX_PARAM_CHARACTERS]) for name, value in flatten(config).items()
        ]
        for start in range(0, len(settings), _MAX_PARAMS):
            self._module.log_params(dict(settings[start : start + _MAX_PARAMS]))


class _Guarded:
    """Logger that is disabled at its first failure; `metrics.jsonl` still has all metrics."""

    def __init__(self, name: str, logger: Logger) -> None:
        self._name = name
        self._logger: Logger | None = logger

    def log(self, step: int, split: str, figures: Mapping[str, float]) -> None:
        self._try(lambda logger: logger.log(step, split, figures))

    def finish(self, result: Mapping[str, float] | None) -> None:
        self._try(lambda logger: logger.finish(result))

    def _try(self, call: Callable[[Logger], None]) -> None:
        if self._logger is None:
            return
        try:
            call(self._logger)
        except Exception as error:
            self._logger = None
            _warn(f"the logger {self._name} failed and is switched off", error)


_KINDS: dict[str, Callable[[Any, _Ids, Mapping[str, Any], int], Logger]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WandB,
    "trackio": _Trackio,
    "mlflow": _MLflow,
}
_MODULES = {"tensorboard": "torch.utils.tensorboard"}


def _warn(what: str, error: Exception) -> None:
    """Warn in one line that a logger logs no more."""
    reason = " ".join(str(error).split())[:_MAX_REASON] or type(error).__name__
    warnings.warn(
        f"{what} ({reason}); the run continues, and metrics.jsonl has all figures", stacklevel=5
    )


def _has_tensorboard() -> bool:
    try:
        import_module(_MODULES["tensorboard"])
    except ImportError:
        return False
    return True


def _import(name: str) -> Any:
    try:
        return import_module(_MODULES.get(name, name))
    except ImportError as error:
        raise UsageError(
            f"run.loggers names {name!r}, which cannot be imported ({error}); "
            f"run: pip install {name}"
        ) from error


def _prefixed(split: str, figures: Mapping[str, float]) -> dict[str, float]:
    return {f"{split}/{name}": value for name, value in figures.items()}
