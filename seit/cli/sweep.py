"""`seit sweep STORE --space F --out OUT`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from seit.cli.flags import RunFlags, figures_bar, print_settings
from seit.cli.integers import Integer
from seit.cli.output import print_result, print_table, say
from seit.cli.train import NOTES
from seit.numbers import counted
from seit.progress import human_seconds

if TYPE_CHECKING:
    from seit.training import SweepResult


def command(
    store: str,
    /,
    *,
    space: Path,
    trials: Integer = 9,
    rungs: Integer = 3,
    reduction: Integer = 3,
    dev: float = 0.1,
    budget: str | None = None,
    max_bytes: Integer | None = None,
    max_flops: Integer | None = None,
    flags: RunFlags = RunFlags(),  # noqa: B008 - frozen
) -> None:
    """Search settings of a recipe: random draws and successive halving.

    Trials are judged on samples held out of the training split; the validation split is read once,
    for the winner, whose settings become OUT/best.yaml, a file for `--config`. Flags of all runs
    are the settings that all trials share.

    Args:
        store: A store's folder or URL.
        space: A YAML file of settings: lists of choices, such as `model.depth: [2, 4]`, and ranges,
            such as `optim.lr: {low: 1.0e-4, high: 1.0e-2, log: true}`.
        trials: Number of trials.
        rungs: Rungs of successive halving; with 1, all trials are trained to the end.
        reduction: Factor between the steps of rungs, and between the numbers of trials.
        dev: Share of the training samples to hold out, 0–1.
        budget: Most steps of all trials, such as 20000, or most seconds, such as 600s; fewer trials
            are drawn if they take more.
        max_bytes: Largest weights in float32, in bytes; larger networks are not trained.
        max_flops: Most operations of a forward pass of one sample, likewise.
        flags: Flags of all runs.
    """
    from seit.api import plan_run, sweep
    from seit.training import SweepConfig, TrainConfig, plan_sweep

    given = flags.keywords()
    extent = SweepConfig(
        trials=trials,
        rungs=rungs,
        reduction=reduction,
        dev=dev,
        budget=budget,
        max_bytes=max_bytes,
        max_flops=max_flops,
    )
    if flags.dry_run:
        settings = {name: value for name, value in given.items() if name != "resume"}
        config = plan_run("train", store, **settings)
        assert isinstance(config, TrainConfig)
        plan = plan_sweep(config, space=space, extent=extent)
        return print_settings(config, json=flags.json, more={"sweep": plan.record()})
    out = flags.folder
    with figures_bar("searching", NOTES) as progress:
        result = sweep(store, out=out, space=space, progress=progress, **asdict(extent), **given)
    if flags.json:
        return print_result(result)
    print_table(_rows(result))
    return say(f"the recipe is {result.recipe}, the report {out}/report.html")


def _rows(result: "SweepResult") -> list[tuple[str, str]]:
    judged = [one for one in result.trials if one.judgments]
    return [
        ("winner", f"trial {result.best} of {len(judged)} ({counted(len(result.trials), 'draw')})"),
        *(
            (name, f"{value:.4g}" if isinstance(value, float) else str(value))
            for name, value in result.settings.items()
        ),
        ("held-out top-1", f"{result.dev_top1:.2%} ({result.dev_samples:,} training samples)"),
        ("top-1", f"{result.top1:.2%} ({result.val_samples:,} samples)"),
        ("steps", f"{result.steps:,} in {human_seconds(result.seconds)}"),
    ]
