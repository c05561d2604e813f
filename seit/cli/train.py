"""`seit train STORE --out RUN`."""

from pathlib import Path
from typing import TYPE_CHECKING

from seit.cli.figures import accuracy_rows, rate_row
from seit.cli.flags import RunFlags, figures_bar, print_settings
from seit.cli.integers import Integer
from seit.cli.output import print_result, print_table, say
from seit.numbers import counted
from seit.processes import is_main_process
from seit.progress import human_seconds

if TYPE_CHECKING:
    from seit.training import SeedsResult, Spread, TrainResult

NOTES = {
    "loss": "loss {:.3f}",
    "val_top1": "top-1 {:.2%}",
    "samples_per_second": "{:.3g} samples/s",
    "data_wait_fraction": "wait {:.0%}",
}


def command(
    store: str,
    /,
    *,
    seeds: Integer = 1,
    pixels: Path | None = None,
    layer: str | None = None,
    pretrained: str | None = None,
    pretrained_head: bool | None = None,
    download: bool = False,
    flags: RunFlags = RunFlags(),  # noqa: B008 - frozen
) -> None:
    """Train a classifier on the tokens of STORE and leave a run folder at OUT.

    Every setting of a recipe is also a flag: `--optim.lr 1e-3`, `--model.depth 6`,
    `--augment.cutmix_prob 0`. `--dry-run` prints them all. Flags win over SEIT_OPTIM_LR-like
    variables, these over --config, that over --recipe, that over the defaults.

    Args:
        store: A store's folder or URL.
        seeds: Number of seeds; with several, each run gets a folder of OUT, and their spread is
            reported.
        pixels: Train on the pixels of this SRC instead, for comparison.
        layer: Of the run of --init-from, keep the network up to this layer: a block of a ViT, such
            as blocks.3, or a stage; `seit analyze probe` names the best. All by default.
        pretrained: Start from timm's pretrained weights of the backbone: a .safetensors or torch
            file, or timm:NAME with --download. The stem and the classifier are new.
        pretrained_head: Load the classifier of --pretrained too, if it has as many classes.
        download: Fetch timm:NAME of --pretrained from the hub.
        flags: Flags of all runs.
    """
    from seit.api import plan_run, train

    given = flags.keywords(
        pixels=pixels, layer=layer, pretrained=pretrained, pretrained_head=pretrained_head
    )
    if flags.dry_run:
        return print_settings(
            plan_run("train", store, out=flags.out, seeds=seeds, **given), json=flags.json
        )
    out = flags.folder
    with figures_bar("training", NOTES) as progress:
        result = train(store, out=out, seeds=seeds, download=download, progress=progress, **given)
    if not is_main_process():
        return None
    if flags.json:
        return print_result(result)
    from seit.training import Run, TrainResult

    if not isinstance(result, TrainResult):
        return _print_seeds(result, out)
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


def _print_seeds(spread: "SeedsResult[TrainResult]", out: Path) -> None:
    from seit.training import LABELS, Run, folder_of

    num_classes = len(Run.open(folder_of(out, next(iter(spread.results)))).classes)
    print_table(
        [(LABELS[name], _spread(name, spread.spreads[name])) for name in spread.shown(num_classes)]
    )
    return say(f"{counted(len(spread.results), 'seed')}; the report is at {out}/report.html")


def _spread(name: str, figure: "Spread") -> str:
    """Describe a mean over seeds and its spread; a single seed alone."""
    form = ".4f" if name == "loss" else ".2%"
    if figure.std is None:
        return f"{figure.mean:{form}} (one seed)"
    return (
        f"{figure.mean:{form}} ± {figure.std:{form}} ({figure.min:{form}} to {figure.max:{form}})"
    )
