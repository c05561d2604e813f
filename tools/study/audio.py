"""Compare audio classifiers on tokens and on spectrograms, over folds and seeds; prints JSON.

    uv run python tools/study/audio.py STORES OUT --clips esc10=esc10/ fsdd=fsdd/ --seeds 3
    uv run python tools/study/audio.py STORES OUT --rows tokens --seeds 3 --jobs 8 --device cuda

ESC-10 goes through its five official folds, each validated once (the first digit of a file's name);
FSDD has its official split. STORES gets a store for each, `esc10-fold1` … and `fsdd`, with a
tokenizer fitted on its own training clips. Without --clips, existing stores are used, and the row
`mel`, which needs the sounds, is skipped.

`tokens` is `seit train`; `mel` is the same network and recipe on the unquantized spectrograms that
the tokens encode, trained by the loop of `tools/bench/audio.py`. Both compute in float32. OUT keeps
the runs: finished ones are reused, interrupted ones resume. --jobs runs are trained at a time.
"""

import argparse
import csv
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from seit.config import build, read_yaml
from seit.devices import choose_device
from seit.files import write_atomically
from seit.ingest import TokenizeConfig, tokenize
from seit.ingest.sources import list_corpus
from seit.recipes import find_recipe
from seit.shards import CARD_NAME, open_store
from seit.tokenizers import MelTokenizer
from seit.training import TrainConfig, train
from seit.training.versions import environment

ROWS = ("tokens", "mel")


@dataclass(frozen=True)
class Task:
    """A corpus with its tokenizer, its recipe, and its folds, if any."""

    tokenizer: str
    recipe: str
    folds: tuple[int, ...] = ()

    def stores(self, name: str) -> list[str]:
        """Return the stores of the corpus of this name."""
        return [f"{name}-fold{fold}" for fold in self.folds] or [name]


TASKS = {
    "esc10": Task("mel-vq-5s", "audio-small-cpu", folds=(1, 2, 3, 4, 5)),
    "fsdd": Task("mel-vq-1s", "speech-small-cpu"),
}


@dataclass(frozen=True)
class Job:
    """Description of one run, passed to a process."""

    task: str
    store: str
    row: str
    seed: int
    steps: int | None
    stores: Path
    out: Path
    clips: Path | None
    device: str

    def config(self) -> TrainConfig:
        """Return the recipe with this run's steps, seed and device."""
        recipe = find_recipe(TASKS[self.task].recipe).path
        config = build(TrainConfig, read_yaml(recipe), origin="recipe")
        schedule = config.schedule
        assert schedule.steps is not None, "audio recipes need schedule.steps"
        assert schedule.warmup_steps is not None
        steps = self.steps or schedule.steps
        warmup = max(1, round(steps * schedule.warmup_steps / schedule.steps))
        return replace(
            config,
            schedule=replace(schedule, steps=steps, warmup_steps=warmup),
            run=replace(
                config.run,
                seed=self.seed,
                device=self.device,
                precision="fp32",
                eval_every=steps,
                loggers=(),
            ),
        )


def make_stores(stores: Path, name: str, clips: Path) -> None:
    """Tokenize a corpus once per fold, and reuse finished stores."""
    task = TASKS[name]
    missing = [store for store in task.stores(name) if not (stores / store / CARD_NAME).is_file()]
    for store in missing:
        config, source = TokenizeConfig(tokenizer=task.tokenizer), clips
        if task.folds:
            source = stores / f"{store}.csv"
            write_fold(source, store.partition("-fold")[2], clips)
            config = replace(config, root=clips)
        tokenize(source, stores / store, config)


def write_fold(path: Path, fold: str, clips: Path) -> None:
    """Write a manifest of all clips that validates on one fold."""
    corpus = list_corpus(clips, modality="audio")
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        for clip in corpus.instances:
            split = "val" if Path(clip.key).name.startswith(fold) else "train"
            rows.writerow([clip.key, corpus.classes[clip.label], split])


def run(job: Job) -> dict[str, Any]:
    """Train one run unless it is finished."""
    started = time.perf_counter()
    folder = job.out / job.store / f"{job.row}-{job.config().schedule.steps}-{job.seed}"
    config, store = job.config(), open_store(job.stores / job.store)
    if job.row == "tokens":
        result = train(config, store, out=folder, resume=True)
        figures = {"top1": result.top1, "top5": result.top5, "loss": result.loss}
    else:
        figures = run_mel(job, config, folder)
    place = {"store": job.store, "row": job.row, "seed": job.seed}
    entry = {**place, **figures, "validated": len(store["val"])}
    print(f"{entry}, {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return entry


def run_mel(job: Job, config: TrainConfig, folder: Path) -> dict[str, Any]:
    """Train from spectrograms, and keep only the figures."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from bench.audio import mel_inputs, read_clips, train_and_evaluate

    path = folder / "result.json"
    if path.is_file():
        return dict(json.loads(path.read_text()))
    assert job.clips is not None
    tokenizer = open_store(job.stores / job.store).load_tokenizer()
    assert isinstance(tokenizer, MelTokenizer)
    clips = read_clips(job.clips, TASKS[job.task].tokenizer)
    fold = job.store.partition("-fold")[2]
    is_val = clips.folds == int(fold) if fold else clips.is_val
    with torch.no_grad():
        codebook, ids = mel_inputs(tokenizer, clips.waves)
    config = replace(config, augment=replace(config.augment, synonym_prob=0.0))
    result = train_and_evaluate(codebook, ids, clips, is_val, config)
    figures = {key: result[key] for key in ("top1", "top5", "loss")}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(figures).encode())
    return figures


def summary(task: Task, name: str, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return top-1 of each row: per seed the mean over folds, and its spread over seeds."""
    rows = {}
    for row in ROWS:
        own = [entry for entry in entries if entry["row"] == row]
        if not own:
            continue
        seeds = sorted({entry["seed"] for entry in own})
        means = [mean(entry["top1"] for entry in own if entry["seed"] == seed) for seed in seeds]
        stores = {
            store: mean(entry["top1"] for entry in own if entry["store"] == store)
            for store in task.stores(name)
        }
        rows[row] = {
            "top1": mean(means),
            "top1_std_over_seeds": stdev(means) if len(means) > 1 else math.nan,
            "top1_by_seed": dict(zip(map(str, seeds), means, strict=True)),
            "top1_by_store": stores,
        }
    return rows


def store_figures(path: Path) -> dict[str, Any]:
    """Return size and quality of a store."""
    store = open_store(path)
    return {
        "samples": {name: len(split) for name, split in store.items()},
        "bytes_per_sample": store.num_bytes / store.card.samples,
        "payload_bytes_per_sample": store.card.payload_bytes / store.card.samples,
        "source_bytes_per_sample": store.card.source_bytes / store.card.samples,
        "quality": dict(store.card.quality),
    }


def pairs(texts: Sequence[str]) -> dict[str, Path]:
    """Parse CORPUS=FOLDER … into a mapping."""
    found = {name: Path(folder).absolute() for name, _, folder in (t.partition("=") for t in texts)}
    for name, folder in found.items():
        if name not in TASKS or not folder.is_dir():
            raise SystemExit(f"--clips {name}={folder}: expected {' or '.join(TASKS)}=FOLDER")
    return found


def main() -> None:
    """Run the study and print its JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stores", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", nargs="*", default=[], metavar="CORPUS=FOLDER")
    parser.add_argument("--tasks", nargs="+", choices=[*TASKS], default=[*TASKS])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="default: the recipe's")
    parser.add_argument("--jobs", type=int, default=1, help="runs in parallel")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    clips = pairs(arguments.clips)
    arguments.stores.mkdir(parents=True, exist_ok=True)
    for name, folder in clips.items():
        make_stores(arguments.stores, name, folder)
    jobs = [
        Job(
            task=task,
            store=store,
            row=row,
            seed=seed,
            steps=arguments.steps,
            stores=arguments.stores,
            out=arguments.out,
            clips=clips.get(task),
            device=arguments.device,
        )
        for seed in range(arguments.seeds)
        for task in arguments.tasks
        for store in TASKS[task].stores(task)
        for row in arguments.rows
        if row == "tokens" or task in clips
    ]
    threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
    with ProcessPoolExecutor(
        arguments.jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(min(threads, torch.get_num_threads()),),
    ) as pool:
        entries = list(pool.map(run, jobs))
    report = {
        "study": "audio",
        "seeds": arguments.seeds,
        "tasks": {
            task: {
                **asdict(TASKS[task]),
                "steps": next(job for job in jobs if job.task == task).config().schedule.steps,
                "store": store_figures(arguments.stores / TASKS[task].stores(task)[-1]),
                "rows": summary(
                    TASKS[task], task, [e for e in entries if e["store"].startswith(task)]
                ),
            }
            for task in arguments.tasks
        },
        "runs": entries,
        "jobs": arguments.jobs,
        "environment": environment(choose_device(arguments.device)),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
