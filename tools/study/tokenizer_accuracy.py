"""Compare tokenizers by bytes, by speed, and by the top-1 of a small classifier on their tokens.

    uv run python tools/study/tokenizer_accuracy.py train PHOTOS WORK NAME=TOKENIZER … --steps 1406
    uv run python tools/study/tokenizer_accuracy.py time PHOTOS WORK NAME=TOKENIZER …
    uv run python tools/study/tokenizer_accuracy.py publish

TOKENIZER is a name or a file, as in `seit tokenize --tokenizer`. `train` trains on each store with
the same recipe, steps and seeds; WORK keeps finished stores and runs, which are reused. `time`
tokenizes the val split twice with each, in turns, on all cores, which should be idle. Both write
into `docs/results/tokenizers.json`, one row for each NAME. `publish` draws them into
`docs/tokenizers.svg`, and prints differences from the first row, paired by seed, with their
standard error.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from records import standard_error

from seit.config import build, read_yaml
from seit.files import write_atomically
from seit.ingest import TokenizeConfig, TokenizeResult, tokenize
from seit.recipes import find_recipe
from seit.report import Family, Mark, scatter_svg
from seit.shards import open_store
from seit.training import TrainConfig, train
from seit.training.versions import environment

DOCS = Path(__file__).parents[2] / "docs"
RESULTS = DOCS / "results" / "tokenizers.json"
CHART = DOCS / "tokenizers.svg"
ROUNDS = 2


def train_on(
    photos: str, work: Path, name: str, tokenizer: str, config: TrainConfig, seeds: Sequence[int]
) -> dict[str, Any]:
    """Return the store's bytes and quality, and the accuracy of each seed."""
    folder = work / name
    tokenize(photos, folder, TokenizeConfig(tokenizer=tokenizer))
    store = open_store(folder)
    top1 = {}
    for seed in seeds:
        settings = replace(config, run=replace(config.run, seed=seed))
        run = work / f"run-{name}-{config.schedule.steps}-{seed}"
        top1[str(seed)] = train(settings, store, out=run, resume=True).top1
    return {
        "tokenizer": store.card.tokenizer.name,
        "fingerprint": store.card.tokenizer.fingerprint,
        "payload_bytes_per_sample": store.card.payload_bytes / store.card.samples,
        "bytes_per_sample": store.num_bytes / store.card.samples,
        **store.card.quality,
        "recipe_steps": config.schedule.steps,
        "precision": config.run.precision,
        "top1": fmean(top1.values()),
        "top1_by_seed": top1,
        "environment": environment(torch.device("cpu")),
    }


def time_on(photos: str, work: Path, tokenizer: str) -> float:
    """Return the photos/s of tokenizing the val split, decoding included."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        result = tokenize(
            Path(photos) / "val", Path(folder) / "store", TokenizeConfig(tokenizer=tokenizer)
        )
    assert isinstance(result, TokenizeResult)
    return round(result.samples_per_second, 1)


def add(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Add figures to the rows of the results."""
    report = json.loads(RESULTS.read_text())
    for name, row in rows.items():
        report["rows"][name] = {**report["rows"].get(name, {}), **row}
    write_atomically(RESULTS, json.dumps(report, indent=1).encode() + b"\n")


def publish() -> None:
    """Draw the chart, and print the differences."""
    rows = json.loads(RESULTS.read_text())["rows"]
    rows = {name: row for name, row in rows.items() if row.get("top1_by_seed")}  # not only timed
    first, *others = rows
    for name in others:
        base, own = (rows[one]["top1_by_seed"] for one in (first, name))
        paired = [own[seed] - base[seed] for seed in own if seed in base]
        if paired:
            error = standard_error(paired)
            spread = "one seed" if error is None else f"± {error:.4f}"
            print(f"{name} - {first}: {fmean(paired):+.4f}, {spread}")
    marks = []
    for name, row in rows.items():
        size, top1 = row["payload_bytes_per_sample"], row["top1"]
        is_best = not any(
            other["top1"] > top1 and other["payload_bytes_per_sample"] <= size
            for other in rows.values()
        )
        rate = fmean(row["photos_per_second"]) if row.get("photos_per_second") else None
        label = name if rate is None else f"{name}, {rate:.0f} photos/s"
        error = standard_error([*row["top1_by_seed"].values()]) or 0.0
        marks.append(Mark(label, size, top1, error, is_marked=is_best))
    chart = scatter_svg(
        [Family("tokenizers", marks, is_joined=False)],
        title="Tokenizers: accuracy of a small classifier against bytes",
        x_label="bytes per photo",
        y_label="top-1",
        y_format="percent",
        note="Bars are standard errors over seeds. Ringed: none is better in both.",
    )
    CHART.write_text(chart)


def main() -> None:
    """Run a part of the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("train", "time", "publish"))
    parser.add_argument("photos", nargs="?")
    parser.add_argument("work", type=Path, nargs="?")
    parser.add_argument("tokenizers", nargs="*", metavar="NAME=TOKENIZER")
    parser.add_argument("--recipe", default="small-cpu")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    arguments = parser.parse_args()
    if arguments.part == "publish":
        publish()
        return
    if not arguments.tokenizers:
        parser.error("name PHOTOS, WORK and at least one tokenizer")
    arguments.work.mkdir(parents=True, exist_ok=True)
    pairs = [
        (name, file or name) for name, _, file in (x.partition("=") for x in arguments.tokenizers)
    ]
    if arguments.part == "time":
        rates: dict[str, list[float]] = {name: [] for name, _ in pairs}
        for _ in range(ROUNDS):
            for name, tokenizer in pairs:
                rates[name].append(time_on(arguments.photos, arguments.work, tokenizer))
        add({name: {"photos_per_second": values} for name, values in rates.items()})
        return
    config = build(TrainConfig, read_yaml(find_recipe(arguments.recipe).path), origin="recipe")
    config = replace(
        config,
        schedule=replace(config.schedule, steps=arguments.steps),
        run=replace(config.run, precision=arguments.precision),
    )
    for name, tokenizer in pairs:
        row = train_on(arguments.photos, arguments.work, name, tokenizer, config, arguments.seeds)
        add({name: {"recipe": arguments.recipe, **row}})


if __name__ == "__main__":
    main()
