"""Compare continual learning from tokens: learners, orders and bytes of memory; prints JSON.

    uv run python tools/study/continual.py STORE BACKBONE OUT --orders 3 --jobs 2
    uv run python tools/study/continual.py STORE BACKBONE OUT --parts storage --source photos/

STORE is learned class by class. BACKBONE is a finished run of `seit pretrain` or `seit train` on
tokens of the same tokenizer. Parts:

    learners  every learner on several orders of the classes; LAE with adapters, LoRA and prefixes,
              and its two experts alone
    storage   experience replay from memories of several sizes, with samples stored as tokens, as
              JPEG at the tokenizer's resolution, or raw, at equal steps; pictures of --source are
              tokenized again when they are stored
    lae       LAE without one of its parts: no freezing, no averaging, no calibration

All runs of a part take the same steps on the same batches. OUT keeps finished runs and reuses them.
With --seconds no run starts after that time.
"""

import argparse
import json
import math
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from seit.config import build, merge, to_mapping
from seit.continual_learning import ContinualConfig, continual
from seit.devices import choose_device
from seit.shards import open_store
from seit.training import Run
from seit.training.versions import environment

PARTS = ("learners", "storage", "lae")
PETS: dict[str, dict[str, Any]] = {
    "adapter": {"method": "adapter", "hidden_dim": 5},
    "lora": {"method": "lora", "rank": 5, "targets": ["k", "v"]},
    "prefix": {"method": "prefix", "length": 10},
}
BUDGETS = (50_000, 100_000, 500_000, 1_000_000, 5_000_000)
MEDIA = ("tokens", "jpeg:75", "jpeg:95", "raw")
LEARNERS_BUDGET = 50_000
"""Memory in bytes of the rehearsal rows of the part `learners`."""
REHEARSING = ("er", "der++", "icarl", "gdumb")
FIGURES = ("last_accuracy", "average_accuracy", "forgetting", "task_incremental_last_accuracy")


@dataclass(frozen=True)
class Job:
    """A run: its name and its settings."""

    part: str
    row: str
    order: int
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of its folder."""
        slug = "".join(letter if letter.isalnum() else "-" for letter in self.row)
        return f"{self.part}-{slug}-{self.order}"


def base(arguments: argparse.Namespace, order: int) -> dict[str, Any]:
    """Return the settings shared by all runs of an order."""
    return {
        "data": {"batch_size": 24},
        "schedule": {"steps": arguments.steps},
        "stream": {
            "increment": arguments.increment,
            "order": "natural" if not order else f"pilot:{1992 + order}",
        },
        "run": {
            "seed": order,
            "device": arguments.device,
            "checkpoint_every": 500,
            "log_every": 100,
            "loggers": [],
        },
    }


def tuned(pet: str, depth: int) -> dict[str, Any]:
    """Return settings for modules in the first 5/12 of the blocks, at least one, as in LAE."""
    blocks = max(1, round(depth * 5 / 12))
    return {"tuning": {"num_blocks": blocks, "learn_scale": True, **PETS[pet]}}


def plan(arguments: argparse.Namespace, depth: int) -> list[Job]:
    """Return all jobs, those of the first order first."""
    lae = {"method": "lae", "lae": {"ema_absorb": arguments.absorb}}
    jobs = []

    def add(part: str, row: str, order: int, *settings: dict[str, Any]) -> None:
        wanted = arguments.rows is None or any(row.startswith(one) for one in arguments.rows)
        if part in arguments.parts and wanted:
            jobs.append(Job(part, row, order, merge(base(arguments, order), *settings)))

    adapter = tuned("adapter", depth)
    for order in range(arguments.orders):
        for pet in PETS:
            add("learners", f"lae, {pet}", order, lae, tuned(pet, depth))
            add("learners", f"seq-ft, {pet}", order, {"method": "seq-ft"}, tuned(pet, depth))
        seen = {"method": "seq-ft", "mask": "seen"}
        add("learners", "seq-ft, adapter, among all classes", order, seen, adapter)
        for method in ("frozen-head", "ncm", "simplecil", "ranpac", "joint"):
            add("learners", method, order, {"method": method}, adapter)
        for method in REHEARSING:
            memory = {"method": method, "memory": {"bytes": LEARNERS_BUDGET}}
            add("learners", f"{method}, {LEARNERS_BUDGET:,} B", order, memory, adapter)
        for row, change in {
            "lae": {},
            "no freezing": {"lae": {"freeze": 0.0}},
            "the paper's decay 0.9999": {"lae": {"ema_absorb": None}},
            "scale fixed": {"tuning": {"learn_scale": False}},
        }.items():
            add("lae", row, order, lae, adapter, change)
        for row, change in {
            "prefix": {},
            "prefix, not compensated": {"tuning": {"compensate": False}},
        }.items():
            add("lae", row, order, lae, tuned("prefix", depth), change)
        for budget in BUDGETS:
            for medium in MEDIA:
                memory = {"bytes": budget, "medium": medium}
                if medium != "tokens":
                    memory["source"] = str(arguments.source)
                row = f"er, {medium}, {budget:,} B"
                add("storage", row, order, {"method": "er", "memory": memory}, adapter)
    return jobs


def run_job(job: Job, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train a run, or read its result, in a separate process."""
    torch.set_num_threads(arguments.threads)
    started = Run.open(arguments.backbone).settings
    of_backbone = {
        "model": {**to_mapping(started)["model"], "drop_path": 0.0},
        "augment": {"crop_size": started.augment.crop_size, "crop_scale": [0.5, 1.0]},
    }
    config = build(ContinualConfig, merge(of_backbone, job.settings), origin=job.name)
    result = continual(
        config,
        arguments.store,
        out=arguments.out / job.name,
        resume=True,
        init_from=arguments.backbone,
    )
    memory = result.protocol["memory"]
    return {
        "part": job.part,
        "row": job.row,
        "order": job.order,
        **{name: result.metrics[name] for name in FIGURES},
        "experts": {name: values[-1] for name, values in result.experts.items()},
        "accuracies": result.experts["all"],
        "trained_parameters": result.trained_parameters,
        "memory_bytes": result.ledger["total_memory_bytes"],
        "exemplars": None if memory is None else memory["exemplars"],
        "steps": result.steps,
        "seconds": result.seconds,
    }


def summary(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return each row's mean and spread over orders, and its gain over sequential fine-tuning."""
    rows: dict[str, Any] = {}
    for entry in entries:
        rows.setdefault(entry["row"], []).append(entry)
    found = {}
    for row, own in rows.items():
        told: dict[str, Any] = {"n": len(own)}
        for name in FIGURES:
            values = [one[name] for one in own if one[name] is not None]
            if values:
                told[name] = mean(values)
                told[f"{name}_std"] = stdev(values) if len(values) > 1 else math.nan
        for name in own[0]["experts"]:
            told[f"{name}_last_accuracy"] = mean(one["experts"][name] for one in own)
        for name in ("trained_parameters", "memory_bytes", "exemplars", "seconds"):
            values = [one[name] for one in own if one[name] is not None]
            if values:
                told[name] = mean(values)
        found[row] = told
    return found


def main() -> None:
    """Run the study and print its JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("backbone", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rows", nargs="+", help="only rows with names that start like this")
    parser.add_argument("--source", type=Path, help="SRC of the store, needed by the part storage")
    parser.add_argument("--orders", type=int, default=3)
    parser.add_argument("--increment", type=int, default=2)
    parser.add_argument("--steps", type=int, default=200, help="of a task")
    parser.add_argument(
        "--absorb", type=float, default=0.1, help="share that a task moves into LAE's"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs in parallel")
    parser.add_argument("--threads", type=int, default=1, help="of each")
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if "storage" in arguments.parts and arguments.source is None:
        raise SystemExit("the part storage needs the pictures of the store: pass --source SRC")
    started = time.monotonic()
    model = Run.open(arguments.backbone).settings.model
    jobs = plan(arguments, model.depth or 12)
    entries: list[dict[str, Any]] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, mp_context=context) as pool:
        waiting = iter(jobs)
        first = islice(waiting, arguments.jobs)
        running = {pool.submit(run_job, job, arguments) for job in first}
        while running:
            done = next(as_completed(running))
            running.remove(done)
            entries.append(done.result())
            print(json.dumps(entries[-1]), file=sys.stderr, flush=True)
            if time.monotonic() - started < arguments.seconds and (job := next(waiting, None)):
                running.add(pool.submit(run_job, job, arguments))
    store = open_store(arguments.store)
    report = {
        "study": "continual",
        "store": {
            "samples": {name: len(split) for name, split in store.items()},
            "payload_bytes_per_sample": store.card.payload_bytes / store.card.samples,
            "tokenizer": store.card.tokenizer.name,
            "grid": list(store.card.tokenizer.grid),
        },
        "increment": arguments.increment,
        "steps_of_a_task": arguments.steps,
        "absorb": arguments.absorb,
        "orders": arguments.orders,
        "planned": len(jobs),
        "parts": {
            part: summary([one for one in entries if one["part"] == part])
            for part in arguments.parts
        },
        "runs": entries,
        "jobs": arguments.jobs,
        "environment": environment(choose_device(arguments.device)),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
