"""Compare tokenizers by bytes and by the top-1 of a small classifier on their tokens; JSON.

    uv run python tools/study/tokenizer_accuracy.py PHOTOS OUT NAME=TOKENIZER … --seeds 0 1 2

TOKENIZER is a name or a file, as in `seit tokenize --tokenizer`. Each store is trained on with the
same recipe, steps and seeds; differences from the first are paired by seed, with their standard
error. OUT keeps finished stores and runs and reuses them.
"""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from seit.config import build, read_yaml
from seit.ingest import TokenizeConfig, tokenize
from seit.recipes import find_recipe
from seit.shards import open_store
from seit.training import TrainConfig, train
from seit.training.versions import environment


def study(
    photos: str, out: Path, name: str, tokenizer: str, config: TrainConfig, seeds: list[int]
) -> dict[str, Any]:
    """Return one row: the store's bytes and quality, and the accuracy of each seed."""
    folder = out / name
    tokenize(photos, folder, TokenizeConfig(tokenizer=tokenizer))
    store = open_store(folder)
    top1 = []
    for seed in seeds:
        settings = replace(config, run=replace(config.run, seed=seed))
        run = out / f"run-{name}-{config.schedule.steps}-{seed}"
        top1.append(train(settings, store, out=run, resume=True).top1)
    return {
        "tokenizer": store.card.tokenizer.name,
        "fingerprint": store.card.tokenizer.fingerprint,
        "payload_bytes_per_sample": store.card.payload_bytes / store.card.samples,
        "bytes_per_sample": store.num_bytes / store.card.samples,
        **store.card.quality,
        "top1": mean(top1),
        "top1_std": stdev(top1) if len(top1) > 1 else math.nan,
        "top1_by_seed": dict(zip(map(str, seeds), top1, strict=True)),
    }


def difference(found: dict[str, float], first: dict[str, float]) -> dict[str, float]:
    """Return the mean difference over seeds and its standard error."""
    paired = [found[seed] - first[seed] for seed in found]
    error = stdev(paired) / math.sqrt(len(paired)) if len(paired) > 1 else math.nan
    return {"mean": mean(paired), "error": error}


def main() -> None:
    """Run the study and print its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos")
    parser.add_argument("out", type=Path)
    parser.add_argument("tokenizers", nargs="+", metavar="NAME=TOKENIZER")
    parser.add_argument("--recipe", default="small-cpu")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = build(TrainConfig, read_yaml(find_recipe(arguments.recipe).path), origin="recipe")
    config = replace(
        config,
        schedule=replace(config.schedule, steps=arguments.steps),
        run=replace(config.run, precision=arguments.precision),
    )
    rows = {}
    for entry in arguments.tokenizers:
        name, _, tokenizer = entry.partition("=")
        rows[name] = study(
            arguments.photos, arguments.out, name, tokenizer or name, config, arguments.seeds
        )
    first, *others = rows.values()
    for row in others:
        row["difference"] = difference(row["top1_by_seed"], first["top1_by_seed"])
    report = {
        "study": "tokenizers",
        "photos": arguments.photos,
        "recipe": arguments.recipe,
        "steps": arguments.steps,
        "precision": arguments.precision,
        "rows": rows,
        "environment": environment(torch.device("cpu")),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
