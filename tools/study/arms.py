"""Compare ways to train on one corpus: arms × seeds, a learning rate for each arm, one table.

    uv run python tools/study/arms.py tools/study/tokens_pixels.yaml WORK --data FOLDER --hours 2
    uv run python tools/study/arms.py tools/study/tokens_pixels.yaml WORK --data FOLDER \
        --arms "patch tokens" "strong pixels"
    uv run python tools/study/arms.py tools/study/tokens_pixels.yaml WORK --publish

Each arm first tries every rate of the grid on a slice held out of the training split (`dev`), then
trains with the best one on the whole split, once for each seed; only these runs see val. A study
with folds does so in each fold: every fold is val once, and has rates of its own. Results go
to `docs/results/STUDY.json` as they come, and what is there is not run again: a study may go on in
another folder, or on another machine. Start the command several times on one WORK to use several
cores; a run that was interrupted continues from its checkpoint. `--arms` does these arms only;
`--precision bf16` is for CPUs with matrix units, and noted with each result.
`--publish` writes the table into docs/evidence.md and draws a chart beside it.
"""

import argparse
import csv
import itertools
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import msgspec
import torch
import yaml
from filelock import FileLock, Timeout

import seit
from seit.analysis.frontier.corpora import copied_bytes, copier_of, make_copy
from seit.analysis.frontier.points import parse_points
from seit.api import plan_run
from seit.config import nest
from seit.files import write_atomically
from seit.ingest import TokenizeConfig, fit_and_measure, list_corpus
from seit.ingest.resolve import resolve_tokenizer
from seit.modality import Modality
from seit.report import Family, Mark, scatter_svg
from seit.stores import hold_out_samples
from seit.stream import select
from seit.tokenizers import save_tokenizer
from seit.training import Run, TrainResult, environment

DOCS = Path(__file__).parents[2] / "docs"
RESULTS = DOCS / "results"
PAGE = DOCS / "evidence.md"
DEV = "dev"
COPY_SIZE = 256
"""Largest side of copies, in pixels."""
SHOWN = 2.0
"""Standard errors that a difference must exceed."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to train.

    Attributes:
        store: name of the store.
        pixels: whether to train on the pixels of the corpus instead.
        copy: pixels of this point of `seit frontier`, such as `res-1/4-q50`: the same pictures as
            smaller or coarser JPEG, in training and in validation; empty for the files as they are.
        settings: settings by dotted name, over those of the study.
    """

    store: str
    pixels: bool = False
    copy: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Study:
    """Arms to compare.

    Attributes:
        corpus: name of the folder of images or sounds.
        stores: settings of `seit.tokenize`, by name of the store; `levels` of a residual tokenizer
            are fitted first.
        recipe: recipe of all arms.
        settings: settings over the recipe, by dotted name.
        rates: grid of ``optim.lr``.
        search: settings of a run that tries a rate, by dotted name.
        dev: share of the training samples that rates are judged on.
        seeds: number of seeds.
        reference: arm that the others are compared with.
        arms: arms by name.
        folds: pattern of the file names of each fold, by its name; the corpus's own split if empty.
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

    def jobs(self, arms: Sequence[str]) -> "Iterator[Job]":
        """Yield the runs of ``arms``: rates first, then seed by seed, for early tables."""
        for arm, fold, rate in itertools.product(arms, self.folds or [""], self.rates):
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
        runs = self.read()
        found = [runs.get(Job(arm=arm, fold=fold, rate=rate).name) for rate in study.rates]
        if not all(found):
            return None
        top1 = {rate: one["top1"] for rate, one in zip(study.rates, found, strict=True) if one}
        return max(sorted(top1), key=lambda rate: top1[rate])


@dataclass(frozen=True)
class Work:
    """Folder of stores and runs."""

    path: Path
    corpus: Path
    precision: str = "auto"

    def store(self, study: Study, name: str, fold: str) -> Path:
        """Return a store, made on first use."""
        path = self.path / "stores" / f"{name}{fold}"
        settings = dict(study.stores[name])
        levels = settings.pop("levels", None)
        with FileLock(self.path / f"{path.name}.lock"):
            source = self.corpus
            if fold:
                config, _ = resolve_tokenizer(TokenizeConfig(tokenizer=settings["tokenizer"]))
                source = self._manifest(fold, study.folds[fold], config.modality)
                settings["root"] = str(self.corpus)
            if levels is not None:
                settings["tokenizer"] = str(self._fit(path.name, levels, source, settings))
                for fitted in ("codes", "size"):
                    settings.pop(fitted, None)
            seit.tokenize(source, out=path, **settings)
        return path

    def _manifest(self, fold: str, pattern: str, modality: Modality) -> Path:
        """Write a manifest of the whole corpus with the files of one fold as val."""
        path, corpus = self.path / f"fold{fold}.csv", list_corpus(self.corpus, modality=modality)
        with path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["path", "label", "split"])
            for one in corpus.instances:
                is_val = fnmatchcase(Path(one.key).name, pattern)
                rows.writerow([one.key, corpus.classes[one.label], "val" if is_val else "train"])
        return path

    def _fit(self, name: str, levels: int, source: Path, settings: Mapping[str, Any]) -> Path:
        """Return the file of a residual tokenizer, fitted on first use."""
        path = self.path / f"{name}.safetensors"
        if not path.exists():
            fitted, *_ = fit_and_measure(source, TokenizeConfig(**settings), levels=levels)
            save_tokenizer(fitted, path)
        return path

    def pictures(self, arm: Arm) -> Path:
        """Return the corpus whose pixels an arm reads; a copy is made on first use."""
        if not arm.copy:
            return self.corpus
        (point,) = parse_points([arm.copy])
        path = self.path / "copies" / point.folder
        path.parent.mkdir(exist_ok=True)
        with FileLock(self.path / f"{point.folder}.lock"):
            corpus = list_corpus(self.corpus)
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

    def run(self, study: Study, job: Job, rate: float) -> dict[str, Any]:
        """Train one run and return its result."""
        arm = study.arms[job.arm]
        settings = {**study.settings, **arm.settings, "optim.lr": rate, "run.seed": job.seed or 0}
        settings["run.precision"] = self.precision
        place = self.store
        if job.seed is None:
            settings |= {**study.search, "data.val_split": DEV}
            place = self.divided
        if arm.pixels:
            settings["data.pixels"] = str(self.pictures(arm))
        store = place(study, arm.store, job.fold)
        out = self.path / "runs" / job.name.replace(", ", "-").replace(" ", "-")
        began = time.monotonic()
        config = plan_run(
            "train",
            store,
            out=out,
            recipe=study.recipe,
            config=nest(settings, origin="the study"),
            resume=True,
        )
        result = seit.train(store, out=out, config=config, resume=True)
        assert isinstance(result, TrainResult)
        footprint = Run.open(out).info.get("footprint", {})
        return {
            "top1": result.top1,
            "rate": rate,
            "precision": self.precision,
            "parameters": result.parameters,
            "flops": footprint.get("flops"),
            "samples_per_second": round(result.samples_per_second, 1),
            "seconds": round(time.monotonic() - began),
            "bytes_per_sample": round(self._bytes_per_sample(store, arm), 1),
            "environment": environment(torch.device("cpu")),
        }

    def _bytes_per_sample(self, store: Path, arm: Arm) -> float:
        if not arm.pixels:
            opened = seit.open(store)
            return opened.num_bytes / opened.card.samples
        folder = self.pictures(arm)
        keys = [str(one.relative_to(folder)) for one in folder.glob("train/*/*")]
        return float(copied_bytes(folder, keys).mean())


def go_on(
    study: Study, results: Results, work: Work, *, arms: Sequence[str], seconds: float
) -> None:
    """Do the runs that are missing and that no other process is doing; start none too late."""
    began = time.monotonic()
    for job in study.jobs(arms):
        if job.name in results.read() or time.monotonic() - began > seconds:
            continue
        rate = job.rate if job.seed is None else results.best_rate(study, job.arm, job.fold)
        if rate is None:
            continue
        try:
            with FileLock(work.path / f"{job.name}.lock", timeout=0):
                if job.name not in results.read():
                    results.add(job.name, work.run(study, job, rate))
                    print(f"{time.monotonic() - began:7.0f} s  {job.name}", flush=True)
        except Timeout:
            continue


def table(study: Study, results: Results) -> str:
    """Return the results as Markdown: means, and differences paired by seed, or by fold."""
    lines = [
        "| arm | bytes | GFLOPs | best rate | top-1, % | seeds | difference | shown |",
        "|---|---|---|---|---|---|---|---|",
    ]
    base = _final_runs(study, results, study.reference)
    for arm in study.arms:
        found = _final_runs(study, results, arm)
        if not found:
            continue
        one = next(iter(found.values()))
        rates = sorted({run["rate"] for run in found.values()})
        paired = {key: found[key]["top1"] - base[key]["top1"] for key in found if key in base}
        difference, shown = _verdict(_units(study, paired))
        if arm == study.reference:
            difference, shown = "reference", ""
        flops = f"{one['flops'] / 1e9:.3f}" if one["flops"] else ""
        top1 = {key: run["top1"] for key, run in found.items()}
        cells = (
            *(arm, f"{one['bytes_per_sample']:,.0f}", flops, ", ".join(f"{x:g}" for x in rates)),
            *(_spread(_units(study, top1)), _counts(study, found), difference, shown),
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _final_runs(study: Study, results: Results, arm: str) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the runs of an arm that were judged on val, by fold and seed."""
    runs = results.read()
    keys = itertools.product(study.folds or [""], range(study.seeds))
    names = {key: Job(arm=arm, fold=key[0], seed=key[1]).name for key in keys}
    return {key: runs[name] for key, name in names.items() if name in runs}


def _units(study: Study, shares: Mapping[tuple[str, int], float]) -> list[float]:
    """Return independent values in %: one a seed, or the mean over the seeds of each fold."""
    units: dict[str | int, list[float]] = {}
    for (fold, seed), share in shares.items():
        units.setdefault(fold if study.folds else seed, []).append(100 * share)
    return [fmean(values) for values in units.values()]


def _counts(study: Study, found: Mapping[tuple[str, int], Any]) -> str:
    """Return the number of seeds, with folds after that of folds."""
    seeds = len({seed for _, seed in found})
    return f"{len({fold for fold, _ in found})} folds × {seeds}" if study.folds else str(seeds)


def chart(study: Study, results: Results) -> str:
    """Return top-1 against bytes per sample as SVG, with standard errors."""
    families: dict[str, list[Mark]] = {"tokens": [], "pixels": [], "copies": []}
    for name, arm in study.arms.items():
        found = _final_runs(study, results, name)
        if found:
            top1 = _units(study, {key: run["top1"] for key, run in found.items()})
            error = stdev(top1) / math.sqrt(len(top1)) if len(top1) > 1 else 0.0
            kind = ("copies" if arm.copy else "pixels") if arm.pixels else "tokens"
            size = next(iter(found.values()))["bytes_per_sample"]
            families[kind].append(Mark(name, size, fmean(top1) / 100, error / 100))
    return scatter_svg(
        [Family(name, marks, is_joined=False) for name, marks in families.items() if marks],
        title=f"{study.corpus}: accuracy against bytes",
        x_label="bytes per sample",
        y_label="top-1",
        y_format="percent",
        note=f"Bars are standard errors over {'folds' if study.folds else 'seeds'}.",
    )


def publish(study: Study, results: Results) -> None:
    """Write the table into the page of evidence, between the comments of the study, and a chart."""
    name = results.path.stem
    head, separator, rest = PAGE.read_text().partition(f"<!-- {name} -->")
    _, end, tail = rest.partition(f"<!-- /{name} -->")
    if not separator or not end:
        raise SystemExit(f"{PAGE} has no comments <!-- {name} --> and <!-- /{name} -->; add them")
    (DOCS / f"{name}.svg").write_text(chart(study, results))
    PAGE.write_text(f"{head}{separator}\n\n{table(study, results)}\n\n{end}{tail}")


def _spread(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.1f}"
    return f"{fmean(values):.1f} ± {stdev(values) / math.sqrt(len(values)):.1f}"


def _verdict(paired: list[float]) -> tuple[str, str]:
    """Return a paired difference with its standard error, and whether it is shown."""
    if not paired:
        return "", ""
    if len(paired) < 3:
        return f"{fmean(paired):+.1f}", "too few seeds"
    error = stdev(paired) / math.sqrt(len(paired))
    is_shown = abs(fmean(paired)) > SHOWN * error
    return f"{fmean(paired):+.1f} ± {error:.1f}", "shown" if is_shown else "not shown"


def main() -> None:
    """Go on with a study, or print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", type=Path, help="folder of the corpora")
    parser.add_argument("--hours", type=float, default=math.inf)
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="arms to do; all if not given")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--publish", action="store_true")
    arguments = parser.parse_args()
    study = msgspec.convert(yaml.safe_load(arguments.study.read_text()), Study, strict=False)
    results = Results(RESULTS / f"{arguments.study.stem}.json")
    if arguments.publish:
        publish(study, results)
        return
    if arguments.data is None:
        parser.error("--data names the folder of the corpora")
    arms = arguments.arms or list(study.arms)
    if unknown := set(arms) - set(study.arms):
        parser.error(f"no arm {', '.join(sorted(unknown))}; the arms are {', '.join(study.arms)}")
    arguments.work.mkdir(parents=True, exist_ok=True)
    work = Work(
        arguments.work.resolve(), (arguments.data / study.corpus).resolve(), arguments.precision
    )
    go_on(study, results, work, arms=arms, seconds=3600 * arguments.hours)
    print(table(study, results))


if __name__ == "__main__":
    main()
