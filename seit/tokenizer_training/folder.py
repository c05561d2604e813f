"""The folder of a training: what it leaves behind, and how it is entered again.

``config.json`` (all settings), ``metrics.jsonl``, ``checkpoints/``, ``tokenizer.safetensors`` and,
when all is done, ``eval.json``; of audio also ``front_end.safetensors``, what spectrograms are
standardised with.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from seit.config import to_mapping
from seit.documents import read_json, read_json_lines
from seit.errors import DamagedError, UsageError
from seit.files import PARTIAL_SUFFIX, explained_writes, write_atomically
from seit.locks import RUN_LOCK_NAME
from seit.tensors import read_tensors, write_tensors
from seit.tokenizer_training.config import TokenizerConfig
from seit.tokenizers import MelConfig, MelFrontEnd
from seit.training import MAX_METRICS_BYTES, MAX_RECORD_BYTES, list_checkpoints

CONFIG_NAME = "config.json"
METRICS_NAME = "metrics.jsonl"
WEIGHTS_NAME = "tokenizer.safetensors"
EVAL_NAME = "eval.json"
FRONT_END_NAME = "front_end.safetensors"


class _Entry(TypedDict):
    """What a line of the metrics holds, besides figures."""

    step: int


class TrainingFolder:
    """The folder of a training."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.weights = self.path / WEIGHTS_NAME

    @classmethod
    def enter(
        cls, path: str | Path, config: TokenizerConfig, begins: Mapping[str, Any], *, resume: bool
    ) -> "TrainingFolder":
        """Make a new training's folder, or enter that of an interrupted or finished one.

        Args:
            path: of the folder.
            config: its settings.
            begins: what it begins with: the fingerprints of its `corpora` and, where it starts
                from a tokenizer, as `init_from` that one's, and its name as `init_from_name`.
            resume: whether a training may be there.

        Raises:
            UsageError: the folder holds something else, a training and ``resume`` is False, or one
                with other settings or of other corpora.
        """
        folder = cls(path)
        if (folder.path / CONFIG_NAME).is_file():
            if not resume:
                raise UsageError(
                    f"{folder.path} already holds a training; pass --resume to go on with it, or "
                    "choose another folder"
                )
            folder._check_same(config, begins)
            return folder
        if folder.path.exists() and (not folder.path.is_dir() or folder._is_used()):
            raise UsageError(f"{folder.path} already holds something else; choose a new folder")
        with explained_writes(folder.path):
            folder.path.mkdir(parents=True, exist_ok=True)
        folder._write(CONFIG_NAME, {**begins, "settings": to_mapping(config)})
        return folder

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Tell whether a training was started at ``path``."""
        return (Path(path) / CONFIG_NAME).is_file()

    def withdraw(self) -> None:
        """Remove what a training wrote that was refused before its first checkpoint."""
        if not list_checkpoints(self.checkpoints):
            for name in (CONFIG_NAME, METRICS_NAME, FRONT_END_NAME):
                (self.path / name).unlink(missing_ok=True)

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """The contents of ``eval.json`` of a finished training; None without its weights."""
        if not self.weights.is_file() or not (self.path / EVAL_NAME).is_file():
            return None
        return self._read(EVAL_NAME)

    def write_evaluation(self, evaluation: Mapping[str, Any]) -> None:
        """Note that the training has finished."""
        self._write(EVAL_NAME, evaluation)

    def read_front_end(self, config: MelConfig) -> MelFrontEnd | None:
        """The front end that the training began with, if it has.

        Raises:
            DamagedError: it is not what was written.
        """
        path = self.path / FRONT_END_NAME
        if not path.exists():
            return None
        return MelFrontEnd.restore(read_tensors(path), config.to_json())

    def write_front_end(self, front_end: MelFrontEnd) -> None:
        """Keep the front end that the training begins with."""
        write_tensors(self.path / FRONT_END_NAME, front_end.tensors())

    def append_metrics(self, entry: Mapping[str, Any]) -> None:
        """Add a line to ``metrics.jsonl``."""
        with explained_writes(self.path), (self.path / METRICS_NAME).open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def rewind_metrics(self, step: int) -> None:
        """Drop the lines after ``step``, which a resumed training writes again, and a torn one."""
        path = self.path / METRICS_NAME
        entries = (
            read_json_lines(path, _Entry, max_bytes=MAX_METRICS_BYTES) if path.exists() else ()
        )
        kept = [json.dumps(entry) + "\n" for entry in entries if entry["step"] <= step]
        write_atomically(path, "".join(kept).encode())

    def _is_used(self) -> bool:
        return any(
            entry.suffix != PARTIAL_SUFFIX and entry.name != RUN_LOCK_NAME
            for entry in self.path.iterdir()
        )

    def _check_same(self, config: TokenizerConfig, begins: Mapping[str, Any]) -> None:
        begun = self._read(CONFIG_NAME)
        settings = begun.get("settings")
        if not isinstance(settings, dict):
            raise DamagedError(f"{self.path / CONFIG_NAME} has no settings; start a new training")
        differences = config.differences(settings)
        if differences:
            raise UsageError(
                f"{self.path} cannot be resumed with other settings ({'; '.join(differences)}); "
                "repeat the first command or choose another folder"
            )
        if begun.get("init_from") != begins.get("init_from"):
            raise UsageError(
                f"{self.path} was not begun from that tokenizer; pass the same --init-from as "
                "before or choose another folder"
            )
        if begun.get("corpora") != begins["corpora"]:
            raise UsageError(
                f"{self.path} was begun on other images; pass the same unchanged SRC or choose "
                "another folder"
            )

    def _read(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = read_json(self.path / name, dict, max_bytes=MAX_RECORD_BYTES)
        return found

    def _write(self, name: str, values: Mapping[str, Any]) -> None:
        write_atomically(self.path / name, json.dumps(values, indent=2).encode() + b"\n")
