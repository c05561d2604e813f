"""Loggers: where a run's figures go besides `metrics.jsonl`.

Each is an optional package, imported when it is asked for. None of them can stop a training: one
that fails is switched off with a warning.
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
from seit.errors import UsageError
from seit.files import write_atomically

TENSORBOARD_FOLDER = "tensorboard"
LOGGERS_NAME = "loggers.json"
"""In the run's folder: by which id each service knows the run."""
MAX_IDS_BYTES = 1 << 16
DEFAULT_PROJECT = "seit"
_MAX_PARAMS = 100
"""MLflow takes at most so many parameters in one request."""
_MAX_PARAM_CHARACTERS = 500


class Logger(Protocol):
    """Takes a run's figures as they come."""

    def log(self, step: int, split: str, figures: Mapping[str, float]) -> None:
        """Take the figures of ``split`` after ``step`` steps."""

    def finish(self, result: Mapping[str, float] | None) -> None:
        """Close the run: with its result, or with None where it was stopped before its end."""


def make_loggers(
    names: Sequence[str], run_folder: Path, config_mapping: Mapping[str, Any], *, step: int = 0
) -> tuple[Logger, ...]:
    """Open the loggers of a run, each once.

    Args:
        names: of `tensorboard`, `wandb`, `trackio`, `mlflow`, and `auto`, which is `tensorboard`
            where that is installed and nothing where it is not.
        run_folder: the run's folder; `tensorboard` writes below it, the others note there by
            which id they know the run, and a resumed run goes on under that.
        config_mapping: the run's settings, nested.
        step: where the run goes on; figures logged after it are replaced.

    Raises:
        UsageError: a name is none of these, or its package is not installed.
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
    return tuple(
        _Guarded(name, _KINDS[name](module, ids, config_mapping, step))
        for name, module in modules.items()
    )


class _Ids:
    """The file in the run's folder that keeps by which id each service knows the run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / LOGGERS_NAME

    @property
    def run_name(self) -> str:
        """The name of the run's folder."""
        return self.folder.resolve().name

    def get(self, service: str) -> str | None:
        """The id that ``service`` gave the run, None for a new run."""
        return self._read().get(service)

    def keep(self, service: str, number: str) -> None:
        """Remember an id."""
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
    """Event files below the run's folder; a resumed run replaces what came after its step."""

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
        self._writer.flush()  # what a killed run had logged stays, as its lines of metrics do

    def finish(self, result: Mapping[str, float] | None) -> None:
        del result
        self._writer.close()


class _WandB:
    """Weights & Biases; WANDB_PROJECT, WANDB_ENTITY and WANDB_MODE hold as always."""

    def __init__(self, module: Any, ids: _Ids, config: Mapping[str, Any], step: int) -> None:
        del step  # what is logged again has the same values
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
    """Trackio, which knows a run by its name; TRACKIO_SPACE_ID and the like hold as always."""

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
    """MLflow; MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME hold as always."""

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
    """A logger that is switched off at its first failure: figures are in `metrics.jsonl` anyway."""

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
            warnings.warn(
                f"the logger {self._name} failed and is switched off ({error}); the run goes on, "
                "and metrics.jsonl has all figures",
                stacklevel=4,
            )


_KINDS: dict[str, Callable[[Any, _Ids, Mapping[str, Any], int], Logger]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WandB,
    "trackio": _Trackio,
    "mlflow": _MLflow,
}
_MODULES = {"tensorboard": "torch.utils.tensorboard"}


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
