"""Run folders: their files, and how to read them.

``config.yaml`` (all settings), ``run.json`` (identity and result), ``metrics.jsonl``,
``checkpoints/``, ``model.safetensors`` (the final weights), ``predictions.safetensors`` (the
predicted class of each sample of the evaluated split), ``tokenizer.safetensors``, ``report.html``.
Records are read without torch, which is imported late.
"""

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from seit.config import build, read_yaml, to_mapping
from seit.documents import as_record, read_json, read_json_lines
from seit.errors import SeitError, UsageError
from seit.files import PARTIAL_SUFFIX, explained_writes, sha256_of, write_atomically
from seit.locks import RUN_LOCK_NAME
from seit.outcomes import summarize
from seit.printable import printable
from seit.shards import Store
from seit.tensors import read_described, read_description, read_tensors, write_tensors
from seit.training.checkpoint import list_checkpoints
from seit.training.config import INIT_FROM, REVISION, LoopConfig, TrainConfig
from seit.training.data_identity import Inputs, identity_of, reinterpreted_data
from seit.training.kinds import Kind, kind_named, kind_of, kind_with
from seit.training.loggers import LOGGERS_NAME, TENSORBOARD_FOLDER
from seit.training.records import (
    FINISHED,
    MAX_METRICS_BYTES,
    MAX_RECORD_BYTES,
    FinishedRecord,
    MetricsEntry,
    RunRecord,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from seit.models import Compression, StoredWeights
    from seit.tokenizers import Tokenizer

CONFIG_NAME = "config.yaml"
RUN_NAME = "run.json"
METRICS_NAME = "metrics.jsonl"
WEIGHTS_NAME = "model.safetensors"
PREDICTIONS_NAME = "predictions.safetensors"
TOKENIZER_NAME = "tokenizer.safetensors"
REPORT_NAME = "report.html"
FAILURE_NAME = "failure.safetensors"
CHECKPOINTS_NAME = "checkpoints"
LOGITS_NAME = "teacher.safetensors"
"""Logits of a pixel teacher for all training samples."""
FRONT_END_NAME = "front_end.safetensors"
"""Statistics with which an audio tokenizer standardizes spectrograms."""
_START_NAMES = (CHECKPOINTS_NAME, RUN_NAME, TOKENIZER_NAME, CONFIG_NAME)
"""Entries written at the start of a run, in this order."""
_SIDE_NAMES = (LOGGERS_NAME, TENSORBOARD_FOLDER, LOGITS_NAME, FRONT_END_NAME)
"""Entries that may be written before the first checkpoint."""


LABEL_SETS = "label_sets"
"""Entry of `run.json`: true for several labels per sample."""


class Settings(Protocol):
    """Settings of a run of any kind."""

    def differences(self, earlier: Mapping[str, Any]) -> list[str]:
        """Return the settings in which a saved config differs from this one."""


class Run:
    """Run folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / CHECKPOINTS_NAME

    @classmethod
    def start(
        cls,
        path: str | Path,
        config: Settings,
        store: Store | Inputs,
        *,
        resume: bool,
        beside: Collection[str] = (),
        notes: Mapping[str, Any] | None = None,
    ) -> "Run":
        """Create a new run's folder, or open that of an interrupted run.

        A kill at any moment leaves a run, or a folder that the next start completes.

        Args:
            path: path of the folder.
            config: settings of the run.
            store: training data.
            resume: whether the folder may hold a run.
            beside: other names that a new run's folder may contain.
            notes: additional entries of a new run's `run.json`.

        Raises:
            UsageError: the folder holds something else, a run and ``resume`` is False, or a run
                with other settings or another store.
        """
        run = cls(path)
        if not resume:
            cls.check_new(path, beside=beside)
        if cls.exists(path):
            run.check_same(config, store)
            if isinstance(config, LoopConfig):
                run._enter(config, store)
            return run
        cls.check_new(path, beside=beside)
        with explained_writes(run.path):
            run.checkpoints.mkdir(parents=True, exist_ok=True)
        info = {
            "status": "started",
            "kind": kind_of(config).name,
            "identity": identity_of(store),
            "revision": REVISION,
        }
        if isinstance(store, Store):
            tokenizer = store.card.tokenizer
            info["tokenizer"] = {"name": tokenizer.name, "fingerprint": tokenizer.fingerprint}
        run.write_info({**info, **(notes or {})})
        if isinstance(store, Store):
            from seit.tokenizers import save_tokenizer

            save_tokenizer(
                store.load_tokenizer(),
                run.path / TOKENIZER_NAME,
                with_weights=store.has_tokenizer_weights,
            )
        run.write_config(config)  # last: it makes the folder a run
        return run

    def _enter(self, config: LoopConfig, store: Store | Inputs) -> None:
        """Save the settings that a resumed run may change."""
        self._check_revision(config, store)
        if self.own_settings.schedule != config.schedule:  # a longer schedule: no longer finished
            self.write_info({**self.info, "status": "started"})
        if self.own_settings != config:
            self.write_config(config)

    @classmethod
    def check_new(cls, path: str | Path, *, beside: Collection[str] = ()) -> None:
        """Check that a new run can start in a folder.

        Raises:
            UsageError: it holds a run, or something not named in ``beside``.
        """
        if cls.exists(path):
            raise UsageError(
                f"{path} already holds a run; pass --resume to resume it, or another --out"
            )
        if not cls(path)._is_free(beside):
            raise UsageError(f"{path} already holds something else; choose a new --out folder")

    def _is_free(self, beside: Collection[str]) -> bool:
        """Return whether the folder holds at most the remains of a killed start."""
        if not self.path.is_dir():
            return not self.path.exists()
        names = {entry.name.removesuffix(PARTIAL_SUFFIX) for entry in self.path.iterdir()}
        own = {RUN_LOCK_NAME, *_START_NAMES, *beside}
        begun = not {CHECKPOINTS_NAME, RUN_NAME}.isdisjoint(names)
        if TOKENIZER_NAME in names and not begun:
            return False  # the user's file
        return names <= own and not list_checkpoints(self.checkpoints)

    def withdraw(self) -> None:
        """Remove the files of a run that was refused before its first checkpoint."""
        for name in (CONFIG_NAME, *_START_NAMES, METRICS_NAME, *_SIDE_NAMES):
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def __repr__(self) -> str:
        info = self._known_info()
        return f"<run {printable(self.path)}: {info.get('kind', 'run')}, {info.get('status')}>"

    def _repr_html_(self) -> str:
        from seit.report import summary_table

        info = self._known_info()
        figures = {name: summarize(value) for name, value in (info.get("result") or {}).items()}
        rows = [
            ("kind", info.get("kind", "")),
            ("status", info.get("status", "")),
            *figures.items(),
        ]
        return summary_table(f"run {self.path}", rows)

    def _known_info(self) -> Mapping[str, Any]:
        """Return `run.json` for display, whatever its state."""
        if not (self.path / RUN_NAME).is_file():
            return {"status": "missing"}
        try:
            return self.info
        except SeitError:
            return {"status": "damaged"}

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Return whether there is a run at ``path``."""
        return (Path(path) / CONFIG_NAME).is_file()

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Open a run folder.

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
        """Settings of a run of the loop over a store.

        Raises:
            UsageError: the run trains a tokenizer or TokenAdapt.
        """
        kind = self.kind
        if not kind.of_tokens:
            raise UsageError(
                f"{self.path} is a run of `seit {kind.command}`, which learned no network for the "
                "tokens of a store; name one of `seit train` or `seit pretrain`"
            )
        return self.own_settings

    @property
    def own_settings(self) -> LoopConfig:
        """Settings of a run of the loop, also of one that takes something else than tokens."""
        path = self.path / CONFIG_NAME
        found: LoopConfig = build(self.kind.settings_class, read_yaml(path), origin=str(path))
        return found

    @property
    def kind(self) -> Kind:
        """Kind of run, from `run.json` or else inferred from the settings.

        Raises:
            UsageError: this version does not know the kind.
        """
        if (self.path / RUN_NAME).is_file() and (name := self.info.get("kind")):
            return kind_named(name)
        return kind_with(read_yaml(self.path / CONFIG_NAME))

    @property
    def objective(self) -> str:
        """Objective: ``classify``, ``continual``, or that of a pretraining run."""
        kind = self.kind
        if not kind.one_network:
            return kind.name
        return str(read_yaml(self.path / CONFIG_NAME).get("objective", "classify"))

    @property
    def command(self) -> str:
        """Command that makes such a run, such as train or tokenizer train."""
        return self.kind.command

    @property
    def config(self) -> TrainConfig:
        """Settings of a classifier's run.

        Raises:
            UsageError: it is a pretraining run, which has no classes, or a continual one.
        """
        settings = self.settings
        if not self.kind.one_network:
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
        """Contents of `run.json`; see `RunRecord`.

        Raises:
            DamagedError: the file is corrupt.
        """
        info: dict[str, Any] = read_json(
            self.path / RUN_NAME, RunRecord, max_bytes=MAX_RECORD_BYTES
        )
        if info["status"] == FINISHED:
            as_record(info, FinishedRecord, origin=str(self.path / RUN_NAME))
        return info

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of the run."""
        return tuple(self.info["identity"]["classes"])

    def load_tokenizer(self) -> "Tokenizer":
        """Load the tokenizer of the tokens that the network takes."""
        from seit.tokenizers import load_tokenizer

        advice = "restore it from a copy of the run"
        return load_tokenizer(self.path / TOKENIZER_NAME, advice=advice)

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Replace `run.json`."""
        write_atomically(self.path / RUN_NAME, json.dumps(info, indent=2).encode() + b"\n")

    def append_metrics(self, entry: Mapping[str, Any]) -> None:
        """Append a line to `metrics.jsonl`."""
        with explained_writes(self.path), (self.path / METRICS_NAME).open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Return all lines of `metrics.jsonl`, except a last line cut short by a kill.

        Raises:
            DamagedError: another line is corrupt.
        """
        path = self.path / METRICS_NAME
        if not path.exists():
            return []
        entries = []
        for line in read_json_lines(path, MetricsEntry, max_bytes=MAX_METRICS_BYTES):
            entry = dict(line)
            entry.setdefault("split", "train")  # earlier trainings of tokenizers wrote no split
            figures = {name: value for name, value in entry.items() if name != "split"}
            as_record(figures, dict[str, float | None], origin=f"a line of {path}")
            entries.append(entry)
        return entries

    def rewind_metrics(self, step: int) -> None:
        """Drop the lines after ``step``, which a resumed run writes again."""
        kept = [json.dumps(entry) + "\n" for entry in self.metrics() if entry["step"] <= step]
        write_atomically(self.path / METRICS_NAME, "".join(kept).encode())

    @property
    def has_label_sets(self) -> bool:
        """True if a finished classifier learned several labels per sample."""
        return self.info.get(LABEL_SETS) is True

    def save_weights(self, model: "nn.Module") -> None:
        """Write the final weights."""
        self.save_tensors(WEIGHTS_NAME, model.state_dict())

    def save_stored(self, weights: "StoredWeights") -> None:
        """Write the final weights of a compressed network."""
        write_tensors(self.path / WEIGHTS_NAME, weights.tensors, card=weights.compression.card())

    def save_tensors(self, name: str, tensors: "Mapping[str, Tensor]") -> None:
        """Write a file of tensors."""
        write_tensors(self.path / name, tensors)

    def load_weights(self) -> "dict[str, Tensor]":
        """Read the final weights; those stored in few bits are unpacked.

        Raises:
            UsageError: the run has not finished.
            DamagedError: the file is corrupt.
        """
        return self.load_stored()[0]

    def load_stored(self) -> "tuple[dict[str, Tensor], Compression]":
        """Read the final weights, and how the network differs from that of the settings.

        Raises:
            UsageError: the run has not finished.
            DamagedError: the file is corrupt.
        """
        from seit.models import Compression, StoredWeights

        path = self.finished_file(WEIGHTS_NAME)
        card, tensors = read_described(path)
        if card is None:
            return tensors, Compression()
        compression = Compression.of_card(card, origin=str(path))
        stored = StoredWeights(tensors=tensors, compression=compression)
        return stored.dense(origin=str(path)), compression

    @property
    def compression(self) -> "Compression":
        """Differences of the network from that of the settings.

        Raises:
            UsageError: the run has not finished.
            DamagedError: the file of its weights is corrupt.
        """
        from seit.models import Compression

        path = self.finished_file(WEIGHTS_NAME)
        card = read_description(path)
        return Compression() if card is None else Compression.of_card(card, origin=str(path))

    def load_tensors(self, name: str) -> "dict[str, Tensor]":
        """Read a file of tensors of a finished run.

        Raises:
            UsageError: the run has not finished.
            DamagedError: the file is corrupt.
        """
        return read_tensors(self.finished_file(name))

    def finished_file(self, name: str) -> Path:
        """Return the path of a file of a finished run.

        Raises:
            UsageError: the run has not finished.
        """
        path = self.path / name
        if path.is_file():
            return path
        if (self.path / FAILURE_NAME).is_file():
            raise UsageError(
                f"the run {self.path} has no {name}: its training failed, and {FAILURE_NAME} holds "
                "the batch; train again with a lower optim.lr"
            )
        raise UsageError(
            f"the run {self.path} has no {name}: it has not finished; resume it by "
            f"`seit {self.command} … --resume`"
        )

    def write_config(self, config: Settings) -> None:
        """Replace `config.yaml`."""
        plain = json.loads(json.dumps(to_mapping(config)))  # tuples as lists, for safe YAML
        text = yaml.safe_dump(plain, sort_keys=False)
        write_atomically(self.path / CONFIG_NAME, text.encode())

    def check_same(self, config: Settings, store: Store | Inputs) -> None:
        """Check that a run can resume with these settings and this store.

        Raises:
            UsageError: it had other settings or another store.
        """
        begun = read_yaml(self.path / CONFIG_NAME)
        differences = config.differences(begun)
        if isinstance(config, LoopConfig) and not self._starts_as(config, begun):
            was, now = begun[INIT_FROM], config.init_from
            differences.append(f"{INIT_FROM} was {was!r} and is {now!r}")
        if differences:
            raise UsageError(
                f"{self.path} cannot be resumed with other settings ({'; '.join(differences)}); "
                "repeat the first command or choose another --out"
            )
        self.check_store(store)

    def check_store(self, store: Store | Inputs) -> None:
        """Check that the store is the one that the run started with.

        Raises:
            UsageError: it is another one, or has changed since.
        """
        identity = self.info.get("identity")
        if not isinstance(identity, dict) or identity | identity_of(store) != identity:
            what = "store" if isinstance(store, Store) else "SRC"
            raise UsageError(
                f"{self.path} was started on another {what} than {store.folder}, or that {what} "
                "has changed since; restore it, or choose another --out"
            )

    def _check_revision(self, config: LoopConfig, store: Store | Inputs) -> None:
        """Raise a `UsageError` if settings had another meaning when the run started."""
        revision = self.info.get("revision", 1)
        changed = config.reinterpreted(revision) + reinterpreted_data(store, config, revision)
        if changed:
            raise UsageError(
                f"{self.path} was started by an earlier version of seit, in which "
                f"{' and '.join(changed)} meant something else (see the changelog); resume it with "
                "that version, or start again in another --out"
            )

    def _starts_as(self, config: LoopConfig, begun: Mapping[str, Any]) -> bool:
        """Return whether a config has the run's initial weights.

        Another path is fine if the weights there are the same. Older runs did not record them.
        """
        if INIT_FROM not in begun or begun[INIT_FROM] == config.init_from:
            return True
        known = self.info.get("weights_from")
        if config.init_from is None or not isinstance(known, dict):
            return False
        path = Path(config.init_from) / WEIGHTS_NAME
        return path.is_file() and sha256_of(path) == known.get("fingerprint")
