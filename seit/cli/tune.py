"""`seit tune STORE --init-from RUN --method adalora --out RUN`."""

import os
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from seit.cli.flags import accuracy_rows, noted_on, print_settings, run_settings
from seit.cli.output import (
    columns,
    human_bytes,
    print_json,
    print_lines,
    print_table,
    progress_bar,
    say,
    warn,
)
from seit.cli.train import NOTES
from seit.errors import UsageError
from seit.progress import human_seconds

if TYPE_CHECKING:
    from seit.models import Method
    from seit.training import MethodsResult, TuneResult

ALL = "all"


def command(
    store: str,
    /,
    *,
    method: str | None = None,
    out: Path | None = None,
    init_from: Path | None = None,
    recipe: str | None = None,
    config: Path | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    seeds: int = 1,
    device: str | None = None,
    resume: bool = False,
    dry_run: bool = False,
    set_: Annotated[list[str] | None, Parameter(name="--set")] = None,
    json: bool = False,
) -> None:
    """Tune the backbone of a finished run on STORE by few weights and leave a run folder at OUT.

    The rest of the backbone stays frozen; a classifier of STORE's classes is always trained. Every
    setting of a recipe is also a flag: `--tuning.rank 4`, `--optim.lr 1e-3`; `--dry-run` prints
    them all.

    Args:
        store: A store's folder.
        method: lora, adalora, adapter, houlsby, adapterbias, prefix, bitfit, weighted-sum, linear
            or full; several with commas between, or all, make runs in OUT/METHOD/seed-0 … and a
            table. That of the recipe by default.
        out: A new folder for the run.
        init_from: The finished run to start from, of `seit pretrain`, `seit train` or `seit tune`.
        recipe: A recipe's name; see `seit recipes list`. The small one unless --config is given.
        config: A YAML file of settings.
        epochs: Passes over the training split.
        steps: Steps, instead of epochs.
        batch_size: Samples per step, over all devices.
        seed: Of weights, order and augmentation.
        seeds: Repeat each method with so many seeds.
        device: auto, cpu, cuda, mps.
        resume: Go on with what is at OUT if there is something (`--resume auto` is the same).
        dry_run: Print the resolved settings as YAML and stop.
        set_: NAME=VALUE; what `--group.field value` is short for.
        json: Print the result as one JSON object.
    """
    from seit.training import TuneConfig, tune, tune_methods

    methods = _methods(method)
    settings = run_settings(
        TuneConfig,
        task="tune",
        store=store,
        recipe=recipe,
        config=config,
        init_from=init_from,
        resumed=out if resume else None,
        named={
            "tuning.method": methods[0] if methods else None,
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
    if settings.init_from is None:
        raise UsageError("--init-from is missing; name the finished run whose backbone to tune")
    if out is None:
        raise UsageError("--out is missing; name a new folder for the run")
    table: MethodsResult | None = None
    result: TuneResult | None = None
    with progress_bar("tuning", "steps") as bar:
        show = noted_on(bar, NOTES)
        shared: Any = {"out": out, "resume": resume, "progress": show}
        if len(methods) > 1 or seeds != 1:
            table = tune_methods(
                settings,
                store,
                methods=methods or (settings.tuning.method,),
                seeds=seeds,
                skip_unfit=method == ALL,
                **shared,
            )
        else:
            result = tune(settings, store, **shared)
    if os.environ.get("RANK", "0") != "0":
        return None  # the main one of several processes prints
    if result is None:
        assert table is not None
        return _print_methods(table, out, json)
    return _print_run(result, out, json)


def _methods(text: str | None) -> tuple["Method", ...]:
    """The methods that a flag names; none where it is not given."""
    from seit.models import METHODS

    if text is None:
        return ()
    if text == ALL:
        return METHODS
    known = {str(one): one for one in METHODS}
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}, {ALL}"
            raise UsageError(f"there is no method {name!r}; {hint}")
    return tuple(known[name] for name in names)


def _print_run(result: "TuneResult", out: Path, json: bool) -> None:
    from seit.training import ADAPTER_NAME, Run

    adapter_bytes = (out / ADAPTER_NAME).stat().st_size
    if json:
        return print_json(asdict(result) | {"adapter_bytes": adapter_bytes})
    print_table(
        [
            *accuracy_rows(
                result, samples=result.val_samples, num_classes=len(Run.open(out).classes)
            ),
            (
                "tuning parameters",
                f"{result.tuning_parameters:,} and {result.head_parameters:,} of the classifier, "
                f"of {result.parameters:,} in all",
            ),
            ("adapter", human_bytes(adapter_bytes)),
            ("steps", f"{result.steps:,} in {human_seconds(result.seconds)}"),
        ]
    )
    return say(f"the report is at {out}/report.html")


def _print_methods(table: "MethodsResult", out: Path, json: bool) -> None:
    from seit.training import HEADER

    warn([f"{method} is left out: {why}" for method, why in table.skipped.items()])
    if json:
        return print_json(asdict(table))
    print_lines(columns([list(HEADER), *(row.cells() for row in table.rows)]))
    return say(f"the report is at {out}/report.html")
