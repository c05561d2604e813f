"""`seit continual STORE --method lae --out RUN`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from seit.cli.flags import noted_on, print_settings, run_settings
from seit.cli.output import human_bytes, print_json, print_table, progress_bar, say
from seit.continual_learning import Method
from seit.errors import UsageError
from seit.progress import human_seconds

if TYPE_CHECKING:
    from seit.continual_learning import ContinualResult

NOTES = {
    "loss": "loss {:.3f}",
    "val_accuracy": "accuracy {:.3f}",
    "samples_per_second": "{:.3g} samples/s",
}


def command(
    store: str,
    /,
    *,
    method: Method | None = None,
    pet: Literal["adapter", "lora", "prefix", "houlsby", "bitfit", "full", "linear"] | None = None,
    increment: int | None = None,
    initial: int | None = None,
    order: str | None = None,
    memory: int | None = None,
    out: Path | None = None,
    recipe: str | None = None,
    config: Path | None = None,
    model: str | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    resume: bool = False,
    init_from: Path | None = None,
    dry_run: bool = False,
    set_: Annotated[list[str] | None, Parameter(name="--set")] = None,
    json: bool = False,
) -> None:
    """Learn the classes of STORE task by task and leave a run folder at OUT.

    Every setting of a recipe is also a flag: `--lae.ema_absorb 0.2`, `--stream.kind blurry`;
    `--dry-run` prints them all.

    Args:
        store: A store's folder.
        method: Method that learns; lae by default.
        pet: Tuning of the backbone; the parallel adapter by default.
        increment: Classes of a task.
        initial: Classes of the first task; as many as of the others by default.
        order: Of the classes: natural, pilot, pilot:SEED, or a file.
        memory: Bytes that kept samples may take, for er, der++, icarl and gdumb.
        out: A new folder for the run.
        recipe: A recipe's name; see `seit recipes list`. `continual-small-cpu` unless --config is
            given.
        config: A YAML file of settings.
        model: A backbone of timm; that of --init-from by default.
        epochs: Passes over each task.
        steps: Steps of each task, instead of epochs.
        batch_size: New samples per step.
        seed: Of weights, order of samples and augmentation.
        device: auto, cpu, cuda, mps.
        resume: Go on with the run at OUT if there is one (`--resume auto` is the same).
        init_from: The finished run whose backbone is adapted.
        dry_run: Print the resolved settings as YAML and stop.
        set_: NAME=VALUE; what `--group.field value` is short for.
        json: Print the result as one JSON object.
    """
    from seit.continual_learning import ContinualConfig, continual

    settings = run_settings(
        ContinualConfig,
        task="continual",
        store=store,
        recipe=recipe,
        config=config,
        init_from=init_from,
        resumed=out if resume else None,
        named={
            "method": method,
            "tuning.method": pet,
            "stream.increment": increment,
            "stream.initial": initial,
            "stream.order": order,
            "memory.bytes": memory,
            "model.name": model,
            "schedule.epochs": epochs,
            "schedule.steps": steps,
            "data.batch_size": batch_size,
            "run.seed": seed,
            "run.device": device,
        },
        assigned=set_,
    )
    if dry_run:
        return print_settings(settings, json=json)
    if out is None:
        raise UsageError("--out is missing; name a new folder for the run")
    with progress_bar("learning tasks", "steps") as bar:
        show = noted_on(bar, NOTES)
        result = continual(settings, store, out=out, resume=resume, progress=show)
    if json:
        return print_json(asdict(result))
    print_table(_rows(result))
    return say(f"the report is at {out}/report.html")


def _rows(result: "ContinualResult") -> list[tuple[str, str]]:
    forgetting = "none" if result.forgetting is None else f"{result.forgetting:.4f}"
    last = {
        name: accuracies[-1]
        for name, accuracies in result.experts.items()
        if name != "all" and len(result.experts) > 2
    }
    return [
        ("last accuracy", f"{result.last_accuracy:.4f} (mean of tasks)"),
        ("average accuracy", f"{result.average_accuracy:.4f}"),
        ("forgetting", forgetting),
        *((f"{name} alone", f"{one:.4f}") for name, one in last.items() if one is not None),
        ("trained", f"{result.trained_parameters:,} parameters"),
        ("kept", f"{human_bytes(result.ledger['total_memory_bytes'])} between tasks"),
        ("steps", f"{result.steps:,} in {human_seconds(result.seconds)}"),
    ]
