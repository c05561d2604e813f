"""Compare tokens, pixels and recipes by the top-1 of a small classifier at equal steps; JSON.

    uv run python tools/study/recipes.py STORE PHOTOS OUT --steps 600 --seeds 0 1 2

Rows: the recipe `small-cpu` on tokens and on pixels; SeiT's published settings on the same tokens,
validated with and without the noise that its code adds; and a small RegNet (that of `stems.py`) on
both. All have the batch and the steps of `small-cpu`. OUT keeps finished runs and reuses them.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import timm
import torch
from stems import BACKBONES
from timm.models import register_model
from torch import Tensor, nn

from seit.augment import SampleRandom, add_noise_, channel_units
from seit.config import build, read_yaml
from seit.recipes import find_recipe
from seit.shards import Store, open_store
from seit.training import Run, TrainConfig, train
from seit.training.config import EmaConfig, ModelConfig
from seit.training.evaluate import evaluate
from seit.training.feeds import make_feed
from seit.training.networks import load_run_model
from seit.training.precision import make_autocast
from seit.training.versions import environment

ROWS = ("tokens", "pixels", "published", "published noised", "cnn tokens", "cnn pixels")
CNN = "regnetx_study"


@register_model
def regnetx_study(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build a RegNetX of six blocks, which two CPU cores can train from 224 px."""
    assert not pretrained
    name, sizes = BACKBONES["regnet"]
    return timm.create_model(name, **sizes, **kwargs)


def config_of(row: str, photos: str, steps: int, seed: int) -> TrainConfig:
    """Return the settings of a row's run."""
    ours = build(TrainConfig, read_yaml(find_recipe("small-cpu").path), origin="recipe")
    config = replace(ours, run=replace(ours.run, seed=seed, device="cpu"))
    if row.startswith("published"):
        theirs = build(TrainConfig, read_yaml(find_recipe("seit-vit-base").path), origin="recipe")
        config = replace(
            theirs,
            model=replace(ours.model, drop_path=theirs.model.drop_path),
            data=ours.data,
            run=config.run,
            ema=EmaConfig(decay=0.0),  # averaged but never evaluated there
        )
    if row.startswith("cnn"):
        config = replace(config, model=ModelConfig(name=CNN))
    if row.endswith("pixels"):
        config = replace(config, data=replace(config.data, pixels=photos))
    warmup = round(steps * config.schedule.warmup_epochs / config.schedule.epochs)
    return replace(config, schedule=replace(config.schedule, steps=steps, warmup_steps=warmup))


def noised_top1(path: Path, store: Store) -> float:
    """Measure a run's top-1 on embeddings with the noise of training."""
    run, device = Run.open(path), torch.device("cpu")
    config = run.config
    feed = make_feed(store, config, device, with_train=False)
    settings, units = config.augment, channel_units(torch.from_numpy(store.codebook))

    def noised() -> Iterator[tuple[Tensor, Tensor]]:
        start = 0
        for inputs, labels in feed.evaluation_inputs():
            positions = torch.arange(start, start + len(labels))
            start += len(labels)
            add_noise_(
                inputs,
                SampleRandom(config.run.seed, 0, positions),
                prob=settings.noise_prob,
                scale=settings.noise_scale,
                std=settings.noise_std,
                units=units.float(),
            )
            yield inputs, labels

    return evaluate(
        load_run_model(run, feed.augment, store.load_tokenizer(), device),
        noised(),
        num_classes=len(store.classes),
        device=device,
        autocast=make_autocast(config, device),
    ).top1


def study(
    row: str, store: Store, photos: str, out: Path, steps: int, seeds: list[int]
) -> dict[str, Any]:
    """Train one row; return the accuracy and rate of each seed."""
    kind = row.removesuffix(" noised")
    top1, rates = [], []
    for seed in seeds:
        path = out / f"{kind.replace(' ', '-')}-{steps}-{seed}"
        result = train(config_of(kind, photos, steps, seed), store, out=path, resume=True)
        top1.append(result.top1 if row == kind else noised_top1(path, store))
        rates.append(result.samples_per_second)
    return {
        "top1": mean(top1),
        "top1_std": stdev(top1) if len(top1) > 1 else math.nan,
        "top1_by_seed": dict(zip(map(str, seeds), top1, strict=True)),
        "samples_per_second": mean(rates),
        "parameters": result.parameters,
    }


def main() -> None:
    """Run the study and print its JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store")
    parser.add_argument("photos")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    arguments = parser.parse_args()
    store = open_store(arguments.store)
    report = {
        "study": "recipes",
        "store": store.card.seal,
        "tokenizer": store.card.tokenizer.name,
        "bytes_per_sample": store.num_bytes / store.card.samples,
        "steps": arguments.steps,
        "rows": {
            row: study(
                row, store, arguments.photos, arguments.out, arguments.steps, arguments.seeds
            )
            for row in arguments.rows
        },
        "environment": environment(torch.device("cpu")),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
