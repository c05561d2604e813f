"""The run folder: what a run leaves behind, and how it is read again.

``config.yaml`` (all settings), ``run.json`` (identity and result), ``metrics.jsonl``,
``checkpoints/``, ``model.safetensors`` (the weights to use), ``predictions.safetensors`` (the class
that it gives to each sample of the evaluated split), ``tokenizer.safetensors``, ``report.html``.
"""

import json
import platform
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
import yaml
from safetensors import SafetensorError
from safetensors.numpy import save as save_numpy
from safetensors.torch import load_file, save
from torch import Tensor, nn

from seit import __version__
from seit.errors import DamagedError, UsageError
from seit.files import explained_writes, write_atomically
from seit.settings import build, read_yaml, to_mapping
from seit.shards import Store
from seit.tokenizers import save_tokenizer
from seit.train.config import REVISION, LoopConfig, TrainConfig

CONFIG_NAME = "config.yaml"
RUN_NAME = "run.json"
METRICS_NAME = "metrics.jsonl"
WEIGHTS_NAME = "model.safetensors"
PREDICTIONS_NAME = "predictions.safetensors"
TOKENIZER_NAME = "tokenizer.safetensors"
REPORT_NAME = "report.html"


class Run:
    """A run's folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"

    @classmethod
    def start(
        cls,
        path: str | Path,
        config: LoopConfig,
        store: Store,
        *,
        resume: bool,
        beside: Collection[str] = (),
    ) -> "Run":
        """Make a new run's folder, or enter that of an interrupted run.

        A new one may hold what ``beside`` names already.

        Raises:
            UsageError: the folder holds something else, a run and ``resume`` is False, or a run
                with other settings or another store.
        """
        run = cls(path)
        if cls.exists(path):
            if not resume:
                raise UsageError(
                    f"{run.path} already holds a run; pass --resume to go on with it, or another "
                    "--out"
                )
            run.check_same(config, store)
            run._check_revision(config)
            if run.settings.schedule != config.schedule:  # a longer one: it has not finished that
                run.write_info({**run.info, "status": "started"})
            if run.settings != config:
                run._write_config(config)
            return run
        if run.path.exists() and (
            not run.path.is_dir() or {entry.name for entry in run.path.iterdir()} - set(beside)
        ):
            raise UsageError(f"{run.path} already holds something else; choose a new --out folder")
        with explained_writes(run.path):
            run.checkpoints.mkdir(parents=True, exist_ok=True)
        save_tokenizer(store.load_tokenizer(), run.path / TOKENIZER_NAME)
        run.write_info({"status": "started", "identity": _identity(store), "revision": REVISION})
        run._write_config(config)
        return run

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Whether a run was started at ``path``."""
        return (Path(path) / CONFIG_NAME).is_file()

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Open a run's folder.

        Raises:
            UsageError: there is no run.
        """
        run = cls(path)
        if not cls.exists(path):
            raise UsageError(
                f"no run at {run.path}: it holds no {CONFIG_NAME}; `seit train` makes one, and so "
                "does `seit pretrain`"
            )
        return run

    @property
    def settings(self) -> LoopConfig:
        """The run's settings, whatever it learns."""
        path = self.path / CONFIG_NAME
        values = read_yaml(path)
        if "stream" in values:
            from seit.train.continual.config import ContinualConfig  # which builds on this module

            return build(ContinualConfig, values, origin=str(path))
        if "objective" in values:
            from seit.train.pretrain.config import PretrainConfig

            return build(PretrainConfig, values, origin=str(path))
        if "tuning" in values:
            from seit.train.tune.config import TuneConfig

            return build(TuneConfig, values, origin=str(path))
        return build(TrainConfig, values, origin=str(path))

    @property
    def objective(self) -> str:
        """What the run learns: ``classify``, ``continual``, or that of a pre-training run."""
        values = read_yaml(self.path / CONFIG_NAME)
        return "continual" if "stream" in values else str(values.get("objective", "classify"))

    @property
    def command(self) -> str:
        """The command that makes such a run: train, tune, pretrain or continual."""
        values = read_yaml(self.path / CONFIG_NAME)
        marks = {"stream": "continual", "objective": "pretrain", "tuning": "tune"}
        return next((command for mark, command in marks.items() if mark in values), "train")

    @property
    def config(self) -> TrainConfig:
        """The settings of a classifier's run.

        Raises:
            UsageError: it is a pre-training run, which knows no classes, or a continual one.
        """
        settings = self.settings
        if self.objective == "continual":
            raise UsageError(
                f"{self.path} is a continual run, whose learners need not be one network; its "
                f"figures are in its {RUN_NAME} and {REPORT_NAME}"
            )
        if not isinstance(settings, TrainConfig):
            raise UsageError(
                f"{self.path} is a pre-training run and knows no classes; fine-tune it by `seit "
                f"train STORE --init-from {self.path} --out …` and use that run"
            )
        return settings

    @property
    def info(self) -> dict[str, Any]:
        """The contents of `run.json`."""
        path = self.path / RUN_NAME
        try:
            return dict(json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise DamagedError(
                f"{path} cannot be read ({error}); restore it from a copy"
            ) from error

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes that the run knows."""
        return tuple(self.info["identity"]["classes"])

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Replace `run.json`."""
        write_atomically(self.path / RUN_NAME, json.dumps(info, indent=2).encode() + b"\n")

    def append_metrics(self, entry: Mapping[str, Any]) -> None:
        """Add a line to `metrics.jsonl`."""
        with explained_writes(self.path), (self.path / METRICS_NAME).open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of `metrics.jsonl`; a last line cut short by a kill is left out."""
        path = self.path / METRICS_NAME
        entries = []
        for line in path.read_text().splitlines() if path.is_file() else ():
            try:
                entries.append(json.loads(line))
            except ValueError:
                continue
        return entries

    def rewind_metrics(self, step: int) -> None:
        """Drop the lines after ``step``, which a resumed run writes again."""
        kept = [json.dumps(entry) + "\n" for entry in self.metrics() if entry["step"] <= step]
        write_atomically(self.path / METRICS_NAME, "".join(kept).encode())

    def save_predictions(
        self, predictions: npt.NDArray[np.int64], labels: npt.NDArray[np.integer]
    ) -> None:
        """Write what the model took each sample of the evaluated split for, and what it is."""
        tensors = {"predictions": predictions, "labels": labels.astype(np.int64)}
        write_atomically(self.path / PREDICTIONS_NAME, save_numpy(tensors))

    def save_weights(self, model: nn.Module) -> None:
        """Write the weights to use."""
        self.save_tensors(WEIGHTS_NAME, model.state_dict())

    def save_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write a file of tensors."""
        on_host = {key: value.cpu().contiguous() for key, value in tensors.items()}
        write_atomically(self.path / name, save(on_host))

    def load_weights(self) -> dict[str, Tensor]:
        """Read the weights to use.

        Raises:
            UsageError: the run has not finished.
            DamagedError: the file is not what was written.
        """
        return self.load_tensors(WEIGHTS_NAME)

    def load_tensors(self, name: str) -> dict[str, Tensor]:
        """Read a file of tensors that a finished run leaves behind.

        Raises:
            UsageError: the run has not finished.
            DamagedError: the file is not what was written.
        """
        path = self.path / name
        if not path.is_file():
            raise UsageError(
                f"the run {self.path} has no {name}: it has not finished; go on with it by "
                f"`seit {self.command} … --resume`"
            )
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise DamagedError(f"{path} is damaged ({error}); restore it from a copy") from error

    def _write_config(self, config: LoopConfig) -> None:
        text = yaml.safe_dump(_plain(to_mapping(config)), sort_keys=False)
        write_atomically(self.path / CONFIG_NAME, text.encode())

    def check_same(self, config: LoopConfig, store: Store) -> None:
        """Refuse to go on with a run that did something else.

        Raises:
            UsageError: it had other settings or another store.
        """
        differences = config.differences(read_yaml(self.path / CONFIG_NAME))
        if differences:
            raise UsageError(
                f"{self.path} cannot be resumed with other settings ({'; '.join(differences)}); "
                "repeat the first command or choose another --out"
            )
        identity = self.info.get("identity")
        if not isinstance(identity, dict) or identity | _identity(store) != identity:
            raise UsageError(
                f"{self.path} was begun on another store than {store.folder}; pass that one or "
                "choose another --out"
            )

    def _check_revision(self, config: LoopConfig) -> None:
        """Refuse to resume a run whose settings meant something else when it started."""
        changed = config.reinterpreted() if self.info.get("revision", 1) < REVISION else []
        if changed:
            raise UsageError(
                f"{self.path} was started by an earlier seit, in which {' and '.join(changed)} "
                "meant something else (see the changelog); resume it with that version, or start "
                "again in another --out"
            )


def environment(device: torch.device) -> dict[str, str]:
    """Versions and hardware, for `run.json` and benchmarks."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return {
        "seit": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "platform": platform.platform(),
        "device": gpu or f"{device.type}, {torch.get_num_threads()} threads",
    }


def _identity(store: Store) -> dict[str, Any]:
    return {"store": store.card.seal, "classes": list(store.classes)}


def _plain(value: Any) -> Any:
    """Tuples → lists, which is what safe YAML knows."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
