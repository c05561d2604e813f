"""`seit pretrain STORE --objective mtm --out RUN`."""

from seit.cli.figures import rate_row
from seit.cli.flags import RunFlags, figures_bar, print_settings
from seit.cli.output import print_result, print_table, say
from seit.pretraining import ObjectiveName
from seit.processes import is_main_process
from seit.progress import human_seconds

NOTES = {
    "loss": "loss {:.3f}",
    "val_knn_top1": "k-NN {:.2%}",
    "val_linear_top1": "linear {:.2%}",
    "samples_per_second": "{:.3g} samples/s",
    "data_wait_fraction": "wait {:.0%}",
}


def command(
    store: str,
    /,
    *,
    objective: ObjectiveName | None = None,
    sparsity: float | None = None,
    flags: RunFlags = RunFlags(),  # noqa: B008 - frozen
) -> None:
    """Pretrain an encoder on the tokens of STORE, without labels, and leave a run folder at OUT.

    `seit train STORE --init-from OUT` fine-tunes it. Labels, if any, are used by the probes only.
    Every setting of a recipe is also a flag: `--mtm.mask.mean 0.6`; `--dry-run` prints them all.

    Args:
        store: A store's folder or URL.
        objective: mtm (masked tokens), sit (SiT: recovery of groups and contrast), or further
            (more masked tokens after --init-from, with self-distillation); mtm by default.
        sparsity: Share of the encoder's attention and MLP weights that is held at zero (SPDF).
        flags: Flags of all runs.
    """
    from seit.api import plan_run, pretrain

    given = flags.keywords(objective=objective, sparsity=sparsity)
    if flags.dry_run:
        return print_settings(plan_run("pretrain", store, out=flags.out, **given), json=flags.json)
    out = flags.folder
    with figures_bar("pretraining", NOTES) as progress:
        result = pretrain(store, out=out, progress=progress, **given)
    if not is_main_process():
        return None
    if flags.json:
        return print_result(result)
    shares = {
        "masked-token accuracy": result.token_accuracy,
        "k-NN top-1": result.knn_top1,
        "linear top-1": result.linear_top1,
    }
    print_table(
        [
            *((name, f"{value:.2%}") for name, value in shares.items() if value is not None),
            ("steps", f"{result.steps:,} in {human_seconds(result.seconds)}"),
            rate_row(result.samples_per_second, result.data_wait_fraction),
        ]
    )
    return say(
        f"the report is at {out}/report.html; fine-tune it with `seit train {store} "
        f"--init-from {out} --out …`"
    )
