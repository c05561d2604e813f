"""Compare methods that tune a few weights of a frozen backbone, and AdaLoRA with LoRA; prints JSON.

    uv run python tools/study/tuning.py STORE BACKBONE OUT --seeds 0 1 2 --jobs 2 --steps 1000

STORE is the corpus to tune on; all runs start from BACKBONE, a finished run. Parts:

    methods  every method of `seit tune` that fits: parameters, share of the model, top-1
    adalora  AdaLoRA and LoRA in all weight matrices, of equal total final rank, at two budgets; the
             ranks that AdaLoRA gives to each layer. Ranks of wide layers take more parameters, so
             parameters are equal up to a few percent; rows report them

OUT keeps finished runs and reuses them. With --seconds no run starts after that time, and rows
report their number of seeds.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from parallel import run_all

from seit.config import build, merge, read_yaml, to_mapping
from seit.errors import UsageError
from seit.models.tuning import METHODS
from seit.recipes import find_recipe
from seit.shards import open_store
from seit.training import Run
from seit.training.tuning import ADAPTER_NAME, TuneConfig, tune
from seit.training.versions import environment

PARTS = ("methods", "adalora")
ALL = ["q", "k", "v", "proj", "fc1", "fc2"]
BUDGETS = (1, 4)
"""Ranks of LoRA, and mean final ranks of AdaLoRA."""


@dataclass(frozen=True)
class Job:
    """A run: its folder in OUT, its row of the table, and its settings."""

    name: str
    part: str
    row: str
    settings: dict[str, Any]


def plan(parts: Sequence[str], seeds: Sequence[int], base: dict[str, Any]) -> list[Job]:
    """Return all runs of the study, seed by seed."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    if "methods" in parts:
        rows |= {("methods", method): {"method": method} for method in METHODS}
    if "adalora" in parts:
        for rank in BUDGETS:
            for method in ("lora", "adalora"):
                settings = {"method": method, "rank": rank, "targets": ALL}
                settings |= {"initial_rank": 2 * rank} if method == "adalora" else {}
                rows["adalora", f"{method}, rank {rank}"] = settings
    return [
        Job(
            f"{part}-{row.replace(', rank ', '-r')}-{seed}",
            part,
            row,
            merge(base, {"tuning": tuning, "run": {"seed": seed}}),
        )
        for seed in seeds
        for (part, row), tuning in rows.items()
    ]


def base_settings(backbone: Path, *, steps: int, batch: int, device: str) -> dict[str, Any]:
    """Return the settings shared by all runs: the recipe, network and inputs of the backbone."""
    started = to_mapping(Run.open(backbone).settings)
    model = {key: value for key, value in started["model"].items() if key != "drop_path"}
    every = max(1, steps // 2)
    return merge(
        read_yaml(find_recipe("tune-small-cpu").path),
        {"model": model, "augment": {"crop_size": started["augment"]["crop_size"]}},
        {
            "data": {"batch_size": batch},
            "schedule": {"steps": steps, "warmup_steps": max(1, steps // 20)},
            "run": {
                "device": device,
                "eval_every": every,
                "checkpoint_every": every,
                "log_every": max(1, steps // 20),
                "loggers": [],
            },
        },
    )


def run_job(job: Job, store: str, backbone: str, out: str) -> dict[str, Any]:
    """Train a run, or read its result, in a separate process."""
    torch.set_num_threads(1)
    config, folder = build(TuneConfig, job.settings, origin=job.name), Path(out) / job.name
    try:
        result = tune(config, store, out=folder, init_from=backbone, resume=True)
    except UsageError as error:
        if folder.exists():
            raise
        return {"unfit": str(error)}
    return asdict(result) | {"adapter_bytes": (folder / ADAPTER_NAME).stat().st_size}


def gather(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return means over the seeds of a row, the deviation of top-1, and mean ranks."""
    if unfit := [one["unfit"] for one in found if "unfit" in one]:
        return {"seeds": 0, "unfit": unfit[0]}
    row: dict[str, Any] = {"seeds": len(found)}
    if not found:
        return row
    tops = [one["top1"] for one in found]
    row |= {"top1": mean(tops), "top1_std": stdev(tops) if len(tops) > 1 else math.nan}
    for key in (
        "loss",
        "parameters",
        "trained_parameters",
        "tuning_parameters",
        "head_parameters",
        "seconds",
        "adapter_bytes",
    ):
        row[key] = mean(one[key] for one in found)
    row["share"] = row["tuning_parameters"] / row["parameters"]
    layers = found[0]["ranks"]
    if layers:
        row["ranks"] = {name: mean(one["ranks"][name] for one in found) for name in layers}
    return row


def main() -> None:
    """Run the study and print its JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("backbone", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the labels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--json", type=Path, help="also write the report here")
    arguments = parser.parse_args()
    base = base_settings(
        arguments.backbone, steps=arguments.steps, batch=arguments.batch, device=arguments.device
    )
    base = merge(base, {"data": {"fraction": arguments.fraction}})
    jobs = plan(arguments.parts, arguments.seeds, base)
    places = {name: str(getattr(arguments, name)) for name in ("store", "backbone", "out")}
    results = run_all(
        jobs,
        partial(run_job, **places),
        workers=arguments.jobs,
        seconds=arguments.seconds,
        shown=lambda result: result.get("top1", result.get("unfit")),
    )
    tables: dict[str, dict[str, Any]] = {part: {} for part in arguments.parts}
    for job in jobs:
        own = [results[one.name] for one in jobs if one.row == job.row and one.name in results]
        tables[job.part][job.row] = gather(own)
    store, backbone = open_store(arguments.store), Run.open(arguments.backbone)
    report = {
        "study": "tuning",
        "steps": arguments.steps,
        "batch": arguments.batch,
        "fraction": arguments.fraction,
        "seeds": arguments.seeds,
        "store": {"samples": store.card.samples, "seal": store.card.seal},
        "backbone": {"learned": backbone.objective, "model": to_mapping(backbone.settings.model)},
        "tables": tables,
        "runs": results,
        "environment": environment(torch.device(arguments.device)),
    }
    text = json.dumps(report, indent=2)
    if arguments.json:
        arguments.json.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
