"""`seit train STORE --out RUN`."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from seit.cli.flags import accuracy_rows, noted_on, print_settings, rate_row, run_settings
from seit.cli.output import print_json, print_table, progress_bar, say
from seit.errors import UsageError
from seit.progress import human_seconds

if TYPE_CHECKING:
    from seit.training import SeedsResult, Spread, TrainResult

NOTES = {
    "loss": "loss {:.3f}",
    "val_top1": "top-1 {:.3f}",
    "samples_per_second": "{:.3g} samples/s",
    "data_wait_fraction": "wait {:.0%}",
}


def command(
    store: str,
    /,
    *,
    out: Path | None = None,
    recipe: str | None = None,
    config: Path | None = None,
    model: str | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    seeds: int = 1,
    device: str | None = None,
    pixels: Path | None = None,
    resume: bool = False,
    init_from: Path | None = None,
    dry_run: bool = False,
    set_: Annotated[list[str] | None, Parameter(name="--set")] = None,
    json: bool = False,
) -> None:
    """Train a classifier on the tokens of STORE and leave a run folder at OUT.

    Every setting of a recipe is also a flag: `--optim.lr 1e-3`, `--model.depth 6`,
    `--augment.cutmix_prob 0`. `--dry-run` prints them all. Flags win over SEIT_OPTIM_LR-like
    variables, these over --config, that over --recipe, that over the defaults.

    Args:
        store: A store's folder.
        out: A new folder for the run.
        recipe: A recipe's name; see `seit recipes list`. Unless --config is given, the one for the
            store's data, fitted to its grid and to few samples.
        config: A YAML file of settings.
        model: A backbone of timm; of a recipe for another one only drop_path is kept.
        epochs: Passes over the training split.
        steps: Steps, instead of epochs.
        batch_size: Samples per step, over all devices.
        seed: Of weights, order and augmentation.
        seeds: Repeat the run with so many seeds, each in a folder of OUT, and say how they spread.
        device: auto, cpu, cuda, mps.
        pixels: Train on the pixels of this SRC instead, for comparison.
        resume: Go on with the run at OUT if there is one (`--resume auto` is the same); its
            schedule may have become longer.
        init_from: Start from the weights of this finished run, of `seit pretrain` too, and with
            its backbone.
        dry_run: Print the resolved settings as YAML and stop.
        set_: NAME=VALUE; what `--group.field value` is short for.
        json: Print the result as one JSON object.
    """
    from seit.training import TrainConfig

    settings = run_settings(
        TrainConfig,
        task="train",
        store=store,
        recipe=recipe,
        config=config,
        init_from=init_from,
        resumed=out if resume else None,
        named={
            "model.name": model,
            "schedule.epochs": epochs,
            "schedule.steps": steps,
            "data.batch_size": batch_size,
            "run.seed": seed,
            "run.device": device,
            "data.pixels": str(pixels) if pixels else None,
        },
        assigned=set_,
    )
    if dry_run:
        return print_settings(settings, json=json)
    if out is None:
        raise UsageError("--out is missing; name a new folder for the run")
    from seit.training import Run, train, train_seeds

    with progress_bar("training", "steps") as bar:
        show = noted_on(bar, NOTES)
        shared: Any = {"out": out, "resume": resume, "progress": show}
        spread = train_seeds(settings, store, seeds=seeds, **shared) if seeds != 1 else None
        result = train(settings, store, **shared) if spread is None else None
    if os.environ.get("RANK", "0") != "0":
        return None  # the main one of several processes prints
    if result is None:
        assert spread is not None
        return _print_seeds(spread, out, json)
    if json:
        return print_json(asdict(result))
    print_table(
        [
            *accuracy_rows(
                result, samples=result.val_samples, num_classes=len(Run.open(out).classes)
            ),
            ("steps", f"{result.steps:,} in {human_seconds(result.seconds)}"),
            rate_row(result.samples_per_second, result.data_wait_fraction),
        ]
    )
    return say(f"the report is at {out}/report.html")


def _print_seeds(spread: "SeedsResult[TrainResult]", out: Path, json: bool) -> None:
    if json:
        return print_json(
            {"seeds": {seed: asdict(result) for seed, result in spread.results.items()}}
            | {name: asdict(figure) for name, figure in spread.spreads.items()}
        )
    from seit.training import LABELS, Run, folder_of, shown_figures

    num_classes = len(Run.open(folder_of(out, next(iter(spread.results)))).classes)
    print_table(
        [(LABELS[name], _spread(spread.spreads[name])) for name in shown_figures(num_classes)]
    )
    return say(f"{len(spread.results)} seeds; the report is at {out}/report.html")


def _spread(figure: "Spread") -> str:
    """A mean over seeds, and how they spread; of one seed itself."""
    if figure.std is None:
        return f"{figure.mean:.4f} (one seed)"
    return f"{figure.mean:.4f} ± {figure.std:.4f} ({figure.min:.4f} to {figure.max:.4f})"
