"""Runs of a study of arms: settings, results so far, and a folder of stores and runs."""

import csv
import io
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

import seit
from seit.analysis.frontier.corpora import copied_bytes, copier_of, make_copy
from seit.analysis.frontier.points import parse_points
from seit.api import plan_run
from seit.config import nest
from seit.files import write_atomically
from seit.ingest import TokenizeConfig, fit_and_measure, list_corpus
from seit.ingest.resolve import resolve_tokenizer
from seit.stores import hold_out_samples
from seit.stream import select
from seit.tokenizers import save_tokenizer
from seit.training import Run, environment

DEV = "dev"
COPY_SIZE = 256
"""Largest side of copies, in pixels."""
VERBS: Mapping[str, Callable[..., Any]] = {
    verb.__name__: verb for verb in (seit.train, seit.pretrain, seit.tune, seit.continual)
}
FIGURES = {"train": "top1", "tune": "top1", "continual": "last_accuracy"}
"""Figure that runs of a verb are judged by; those of pretrain name theirs."""
LABELS = {
    "top1": "top-1, %",
    "last_accuracy": "last accuracy, %",
    "knn_top1": "k-NN, %",
    "linear_top1": "linear probe, %",
}
"""Figures that arms may be judged by, all shares of which more is better, and their titles."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to train.

    Attributes:
        store: name of the store.
        pixels: whether to train on the pixels of the corpus instead.
        copy: pixels of this point of `seit frontier`, such as `res-1/4-q50`: the same pictures as
            smaller or coarser JPEG, in training and in validation; empty for the files as they are.
        settings: settings by dotted name, over those of the study; `{seed}` in a text is the seed,
            `{corpus}` the folder of the study's corpus.
        verb: train, tune, continual or pretrain.
        recipe: recipe, if not the study's.
        start: name of the start whose weights the arm starts with; empty for none.
        teacher: name of the start that is the teacher of `further.teacher`; empty for none.
        by_seed: as a start, whether each seed has its own; else all seeds share one.
        judged_by: figure of `LABELS` that runs are judged by, if not their verb's.
        against: arm that this one is compared with, if not the study's reference.
        rate_of: arm whose best rate it takes, instead of trying all.
        line: line of the chart that the arm is a point of; empty for a point of its own.
    """

    store: str
    pixels: bool = False
    copy: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    verb: str = "train"
    recipe: str = ""
    start: str = ""
    teacher: str = ""
    by_seed: bool = False
    judged_by: str = ""
    against: str = ""
    rate_of: str = ""
    line: str = ""

    @property
    def figure(self) -> str:
        """Name of the figure that its runs are judged by."""
        return self.judged_by or FIGURES.get(self.verb, "")


@dataclass(frozen=True, kw_only=True)
class Study:
    """Arms to compare.

    Attributes:
        corpus: name of the folder of images or sounds.
        stores: settings of `seit.tokenize`, by name of the store; its `tokenizer` may be one of
            ``fits``, and its `corpus` another than the study's. Or settings of `seit.filter`, with
            the name of its source as `of`.
        recipe: recipe of all arms.
        settings: settings over the recipe, by dotted name.
        rates: grid of ``optim.lr``; the recipes' own if empty.
        search: settings of a run that tries a rate, by dotted name.
        dev: share of the training samples that rates are judged on.
        seeds: number of seeds.
        reference: arm that the others are compared with.
        arms: arms by name.
        folds: pattern of the file names of each fold, by its name; the corpus's own split if empty.
        starts: runs whose weights arms, or other starts, start with, by name.
        fits: settings of tokenizers that are fitted first, by name, with their `levels`.

    Raises:
        ValueError: an arm is judged by no figure of `LABELS`.
    """

    corpus: str
    stores: Mapping[str, Mapping[str, Any]]
    recipe: str
    settings: Mapping[str, Any]
    rates: tuple[float, ...]
    search: Mapping[str, Any]
    dev: float
    seeds: int
    reference: str
    arms: Mapping[str, Arm]
    folds: Mapping[str, str] = field(default_factory=dict)
    starts: Mapping[str, Arm] = field(default_factory=dict)
    fits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, arm in self.arms.items():
            if arm.figure not in LABELS:
                raise ValueError(
                    f"the arm {name!r} ({arm.verb}) is judged by {arm.figure or 'no figure'}; set "
                    f"its judged_by to one of {', '.join(LABELS)}"
                )

    def jobs(self, arms: Sequence[str]) -> "Iterator[Job]":
        """Yield the runs of ``arms``: rates first, then seed by seed, for early tables."""
        own = [arm for arm in arms if not self.arms[arm].rate_of]
        for arm, fold, rate in itertools.product(own, self.folds or [""], self.rates):
            yield Job(arm=arm, fold=fold, rate=rate)
        for seed, fold, arm in itertools.product(range(self.seeds), self.folds or [""], arms):
            yield Job(arm=arm, fold=fold, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run: of a rate on dev, or of a seed on val with the best rate.

    Attributes:
        arm: name of the arm.
        fold: fold to validate on; empty for the corpus's own split.
        rate: learning rate to try; None for the best.
        seed: seed of the whole run; None for a run that tries a rate.
    """

    arm: str
    fold: str = ""
    rate: float | None = None
    seed: int | None = None

    @property
    def name(self) -> str:
        """Name of the run among the results."""
        purpose = f"rate {self.rate:g}" if self.seed is None else f"seed {self.seed}"
        return ", ".join([self.arm, *([f"fold {self.fold}"] if self.fold else []), purpose])


@dataclass(frozen=True)
class Results:
    """Results of a study by name of the run, shared by processes."""

    path: Path

    def read(self) -> dict[str, dict[str, Any]]:
        """Return all results."""
        runs: dict[str, dict[str, Any]]
        runs = json.loads(self.path.read_text())["runs"] if self.path.exists() else {}
        return runs

    def add(self, name: str, result: Mapping[str, Any]) -> None:
        """Add one result."""
        with FileLock(f"{self.path}.lock"):
            runs = dict(sorted({**self.read(), name: dict(result)}.items()))
            text = json.dumps({"study": self.path.stem, "runs": runs}, indent=1)
            write_atomically(self.path, text.encode() + b"\n")

    def best_rate(self, study: Study, arm: str, fold: str = "") -> float | None:
        """Return the best rate of an arm on dev, the lowest of equals; None if one is missing."""
        arm = study.arms[arm].rate_of or arm
        runs, figure = self.read(), study.arms[arm].figure
        found = [runs.get(Job(arm=arm, fold=fold, rate=rate).name) for rate in study.rates]
        if not found or not all(found):
            return None
        by_rate = {rate: one[figure] for rate, one in zip(study.rates, found, strict=True) if one}
        return max(sorted(by_rate), key=lambda rate: by_rate[rate])


@dataclass(frozen=True)
class Work:
    """Folder of stores and starts, which studies share by name, and of the runs of a study.

    Attributes:
        path: the folder.
        data: folder of the corpora.
        study: name of the study.
        precision: precision of all runs.
        device: device of all runs.
    """

    path: Path
    data: Path
    study: str
    precision: str = "auto"
    device: str = "cpu"

    def store(self, study: Study, name: str, fold: str) -> Path:
        """Return a store, made on first use."""
        path, settings = self.path / "stores" / f"{name}{fold}", dict(study.stores[name])
        with FileLock(self.path / f"{path.name}.lock"):
            if source_name := settings.pop("of", None):
                if not path.exists():
                    seit.filter(self.store(study, source_name, fold), out=path, **settings)
                return path
            if settings["tokenizer"] in study.fits:
                settings["tokenizer"] = str(self._fit(study, settings["tokenizer"], fold))
            source = self._source(study, settings, fold)
            seit.tokenize(source, out=path, **settings)
        return path

    def _fit(self, study: Study, name: str, fold: str) -> Path:
        """Return the file of a tokenizer, fitted on first use."""
        path, settings = self.path / f"{name}{fold}.safetensors", dict(study.fits[name])
        with FileLock(self.path / f"{path.name}.lock"):
            if not path.exists():
                levels = settings.pop("levels", None)
                source = self._source(study, settings, fold)
                fitted, *_ = fit_and_measure(source, TokenizeConfig(**settings), levels=levels)
                save_tokenizer(fitted, path)
        return path

    def _source(self, study: Study, settings: dict[str, Any], fold: str) -> Path:
        """Take the corpus out of settings; return it, or a manifest with one fold as val."""
        name = settings.pop("corpus", study.corpus)
        corpus: Path = self.data / name
        if not fold or name != study.corpus:  # the others have no folds
            return corpus
        settings["root"] = corpus
        config, _ = resolve_tokenizer(TokenizeConfig(tokenizer=settings["tokenizer"]))
        listed = list_corpus(corpus, modality=config.modality)
        path, text = self.path / f"{corpus.name}-fold{fold}.csv", io.StringIO(newline="")
        rows = csv.writer(text)
        rows.writerow(["path", "label", "split"])
        for one in listed.instances:
            is_val = fnmatchcase(Path(one.key).name, study.folds[fold])
            label = "" if one.label < 0 else listed.classes[one.label]
            rows.writerow([one.key, label, "val" if is_val else "train"])
        write_atomically(path, text.getvalue().encode())  # other processes may be reading it
        return path

    def pictures(self, study: Study, arm: Arm) -> Path:
        """Return the corpus whose pixels an arm reads; a copy is made on first use."""
        original = self.data / study.corpus
        if not arm.copy:
            return original
        (point,) = parse_points([arm.copy])
        path = self.path / "copies" / point.folder
        path.parent.mkdir(exist_ok=True)
        with FileLock(self.path / f"{point.folder}.lock"):
            corpus = list_corpus(original)
            make_copy(corpus.instances, path, copier_of(point, size=COPY_SIZE), workers=1)
        return path

    def divided(self, study: Study, name: str, fold: str) -> Path:
        """Return a store whose training split has lost its held-out samples to `dev`."""
        source = self.store(study, name, fold)
        path = source.with_name(f"{source.name}-{DEV}")
        with FileLock(self.path / f"{source.name}.lock"):
            if not path.exists():
                store = seit.open(source)
                rows = select(store["train"], fraction=study.dev, seed=0)
                hold_out_samples(store, path, split="train", rows=rows, name=DEV)
        return path

    def run(self, study: Study, job: Job, rate: float | None) -> dict[str, Any]:
        """Train one run and return its result."""
        arm = study.arms[job.arm]
        settings = {**study.settings, **arm.settings}
        if rate is not None:
            settings["optim.lr"] = rate
        place = self.store
        if job.seed is None:
            settings |= {**study.search, "data.val_split": DEV}
            place = self.divided
        store, began = place(study, arm.store, job.fold), time.monotonic()
        out = self.path / "runs" / self.study / job.name.replace(", ", "-").replace(" ", "-")
        result = self._train(study, arm, store, out, settings, seed=job.seed or 0, fold=job.fold)
        done = {
            "rate": rate,
            "precision": self.precision,
            "flops": Run.open(out).info.get("footprint", {}).get("flops"),
            "seconds": round(time.monotonic() - began),
            "bytes_per_sample": round(self._bytes_per_sample(study, arm, store), 1),
            "environment": environment(torch.device(self.device)),
        }
        if memory := settings.get("memory.bytes"):
            done["memory_bytes"] = memory
        for name in (arm.figure, "parameters", "trained_parameters", "samples_per_second"):
            if (value := getattr(result, name, None)) is not None:
                done[name] = round(value, 1) if name == "samples_per_second" else value
        return done

    def _train(
        self,
        study: Study,
        arm: Arm,
        store: Path,
        out: Path,
        settings: Mapping[str, Any],
        *,
        seed: int,
        fold: str,
    ) -> Any:
        """Do a run by its verb, or read its result."""
        names = {"seed": seed, "corpus": self.data / study.corpus}
        filled = {
            name: value.format(**names) if isinstance(value, str) else value
            for name, value in settings.items()
        }
        filled |= {"run.seed": seed, "run.precision": self.precision, "run.device": self.device}
        if arm.pixels:
            filled["data.pixels"] = str(self.pictures(study, arm))
        if arm.start:
            filled["init_from"] = str(self._start(study, arm.start, fold, seed))
        if arm.teacher:
            filled["further.teacher"] = str(self._start(study, arm.teacher, fold, seed))
        config = plan_run(
            arm.verb,
            store,
            out=out,
            recipe=arm.recipe or study.recipe,
            config=nest(filled, origin="the study"),
            resume=True,
        )
        return VERBS[arm.verb](store, out=out, config=config, resume=True)

    def _start(self, study: Study, name: str, fold: str, seed: int) -> Path:
        """Return the folder of a start, trained on first use, without the fold's val samples."""
        arm, settings = study.starts[name], {**study.settings, **study.starts[name].settings}
        source = study.stores[study.stores[arm.store].get("of", arm.store)]
        if source.get("corpus", study.corpus) != study.corpus:
            fold = ""  # of another corpus, which has no folds
        seed = seed if arm.by_seed else 0
        out = self.path / "starts" / (f"{name}{fold}" + (f"-{seed}" if arm.by_seed else ""))
        with FileLock(self.path / f"start-{out.name}.lock"):
            store = self.store(study, arm.store, fold)
            self._train(study, arm, store, out, settings, seed=seed, fold=fold)
        return out

    def _bytes_per_sample(self, study: Study, arm: Arm, store: Path) -> float:
        """Return the bytes of a training sample, with all its views."""
        if not arm.pixels:
            opened, views = seit.open(store), study.stores[arm.store].get("views", 1)
            return float(opened.num_bytes / opened.card.samples * views)
        folder = self.pictures(study, arm)
        keys = [str(one.relative_to(folder)) for one in folder.glob("train/*/*")]
        return float(copied_bytes(folder, keys).mean())
