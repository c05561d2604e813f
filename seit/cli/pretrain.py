"""`seit pretrain STORE --objective mtm --out RUN`."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from seit.cli.flags import noted_on, print_settings, rate_row, run_settings
from seit.cli.output import print_json, print_table, progress_bar, say
from seit.errors import UsageError
from seit.pretraining import ObjectiveName
from seit.progress import human_seconds

NOTES = {
    "loss": "loss {:.3f}",
    "val_knn_top1": "k-NN {:.3f}",
    "val_linear_top1": "linear {:.3f}",
    "samples_per_second": "{:.3g} samples/s",
    "data_wait_fraction": "wait {:.0%}",
}


def command(
    store: str,
    /,
    *,
    objective: ObjectiveName | None = None,
    out: Path | None = None,
    recipe: str | None = None,
    config: Path | None = None,
    model: str | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    sparsity: float | None = None,
    seed: int | None = None,
    device: str | None = None,
    resume: bool = False,
    init_from: Path | None = None,
    dry_run: bool = False,
    set_: Annotated[list[str] | None, Parameter(name="--set")] = None,
    json: bool = False,
) -> None:
    """Learn from the tokens of STORE without labels and leave a run folder at OUT.

    `seit train STORE --init-from OUT` fine-tunes the encoder that it holds. Labels, where there are
    any, serve the probes alone. Every setting of a recipe is also a flag: `--mtm.mask.mean 0.6`;
    `--dry-run` prints them all.

    Args:
        store: A store's folder.
        objective: mtm (masked tokens), sit (SiT: recovery of groups and contrast), or further
            (masked tokens, further from --init-from, with self-distillation); mtm by default.
        out: A new folder for the run.
        recipe: A recipe's name; see `seit recipes list`. The objective's small one unless --config
            is given.
        config: A YAML file of settings.
        model: A ViT of timm; of a recipe for another one only drop_path is kept.
        epochs: Passes over the training split.
        steps: Steps, instead of epochs.
        batch_size: Samples per step, over all devices.
        sparsity: Share of the encoder's attention and MLP weights that is held at zero (SPDF).
        seed: Of weights, order, views and masks.
        device: auto, cpu, cuda, mps.
        resume: Go on with the run at OUT if there is one (`--resume auto` is the same).
        init_from: Start from the weights of this finished run, and with its backbone.
        dry_run: Print the resolved settings as YAML and stop.
        set_: NAME=VALUE; what `--group.field value` is short for.
        json: Print the result as one JSON object.
    """
    from seit.pretraining import PretrainConfig, pretrain

    settings = run_settings(
        PretrainConfig,
        task=objective or "mtm",
        store=store,
        recipe=recipe,
        config=config,
        init_from=init_from,
        resumed=out if resume else None,
        named={
            "objective": objective,
            "model.name": model,
            "schedule.epochs": epochs,
            "schedule.steps": steps,
            "data.batch_size": batch_size,
            "sparsity.share": sparsity,
            "run.seed": seed,
            "run.device": device,
        },
        assigned=set_,
    )
    if dry_run:
        return print_settings(settings, json=json)
    if out is None:
        raise UsageError("--out is missing; name a new folder for the run")
    with progress_bar("pre-training", "steps") as bar:
        show = noted_on(bar, NOTES)
        result = pretrain(settings, store, out=out, resume=resume, progress=show)
    if os.environ.get("RANK", "0") != "0":
        return None  # the main one of several processes prints
    if json:
        return print_json(asdict(result))
    shares = {
        "masked-token accuracy": result.token_accuracy,
        "k-NN top-1": result.knn_top1,
        "linear top-1": result.linear_top1,
    }
    print_table(
        [
            *((name, f"{value:.4f}") for name, value in shares.items() if value is not None),
            ("steps", f"{result.steps:,} in {human_seconds(result.seconds)}"),
            rate_row(result.samples_per_second, result.data_wait_fraction),
        ]
    )
    return say(
        f"the report is at {out}/report.html; fine-tune by `seit train {store} --init-from {out} "
        "--out …`"
    )
