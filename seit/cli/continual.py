"""`seit continual STORE --method lae --out RUN`."""

from typing import TYPE_CHECKING, Literal

from seit.cli.flags import RunFlags, figures_bar, print_settings
from seit.cli.integers import Integer
from seit.cli.output import print_result, print_table, say
from seit.continual_learning import Method
from seit.numbers import human_bytes
from seit.processes import is_main_process
from seit.progress import human_seconds

if TYPE_CHECKING:
    from seit.continual_learning import ContinualResult

NOTES = {
    "loss": "loss {:.3f}",
    "val_accuracy": "pooled accuracy {:.2%}",
    "samples_per_second": "{:.3g} samples/s",
}


def command(
    store: str,
    /,
    *,
    method: Method | None = None,
    pet: Literal["adapter", "lora", "prefix", "houlsby", "bitfit", "full", "linear"] | None = None,
    increment: Integer | None = None,
    initial: Integer | None = None,
    order: str | None = None,
    memory: Integer | None = None,
    flags: RunFlags = RunFlags(),  # noqa: B008 - frozen
) -> None:
    """Learn the classes of STORE task by task and leave a run folder at OUT.

    Every setting of a recipe is also a flag: `--lae.ema_absorb 0.2`, `--stream.kind blurry`;
    `--dry-run` prints them all.

    Args:
        store: A store's folder or URL.
        method: Name of the learner; lae by default.
        pet: Part of the backbone that is tuned; the parallel adapter by default.
        increment: Classes per task.
        initial: Classes of the first task; as many as of the others by default.
        order: Order of the classes: natural, pilot, pilot:SEED, or a file.
        memory: Bytes that kept samples may take, for er, der++, icarl and gdumb.
        flags: Flags of all runs.
    """
    from seit.api import continual, plan_run

    given = flags.keywords(
        method=method, pet=pet, increment=increment, initial=initial, order=order, memory=memory
    )
    if flags.dry_run:
        return print_settings(plan_run("continual", store, out=flags.out, **given), json=flags.json)
    out = flags.folder
    with figures_bar("learning tasks", NOTES) as progress:
        result = continual(store, out=out, progress=progress, **given)
    if not is_main_process():
        return None
    if flags.json:
        return print_result(result)
    print_table(_rows(result))
    return say(f"the report is at {out}/report.html")


def _rows(result: "ContinualResult") -> list[tuple[str, str]]:
    forgetting = "none" if result.forgetting is None else f"{result.forgetting:.2%}"
    last = {
        name: accuracies[-1]
        for name, accuracies in result.experts.items()
        if name != "all" and len(result.experts) > 2
    }
    pooled = result.pooled["all"][-1:]
    return [
        ("last accuracy", f"{result.last_accuracy:.2%} (mean of tasks)"),
        *(("pooled", f"{one:.2%} (each sample alike)") for one in pooled if one is not None),
        ("average accuracy", f"{result.average_accuracy:.2%} (mean of tasks)"),
        ("forgetting", forgetting),
        *((f"{name} alone", f"{one:.2%}") for name, one in last.items() if one is not None),
        ("trained", f"{result.trained_parameters:,} parameters"),
        ("kept", f"{human_bytes(result.ledger['total_memory_bytes'])} between tasks"),
        ("steps", f"{result.steps:,} in {human_seconds(result.seconds)}"),
    ]
