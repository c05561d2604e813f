"""`seit eval RUN STORE`."""

from pathlib import Path
from typing import Literal

from seit.cli.flags import accuracy_rows
from seit.cli.output import print_json, print_table, say, warn
from seit.progress import human_rate


def command(
    run: Path,
    store: str,
    /,
    *,
    split: str | None = None,
    unknown_classes: Literal["error", "skip"] = "error",
    spelling: Literal["exact", "loose"] = "exact",
    out: Path | None = None,
    device: str = "auto",
    pixels: str | None = None,
    json: bool = False,
) -> None:
    """Evaluate a finished run on a split of a store, every sample once.

    Classes are matched by name: the store may list them in another order, or lack some.

    Args:
        run: A run's folder.
        store: A store made by the same tokenizer.
        split: Which split; val by default, or the only one.
        unknown_classes: What to do about samples of classes that the run does not know: stop, or
            leave them out and count them.
        spelling: Whether names are the same only if equal, or also if they differ in case, Unicode
            form, blanks, underscores or hyphens.
        out: A new folder for CSV tables: precision, recall and support by class, the confusion
            matrix, the prediction of each sample. A new .csv file gets the first alone.
        device: auto, cpu, cuda, mps.
        pixels: SRC of the images, for a run that was trained on pixels.
        json: Print one JSON object.
    """
    from seit.classes import listed
    from seit.shards import open_store
    from seit.training import check_new_tables, evaluate_run, write_evaluation

    if out is not None:
        check_new_tables(out)
    opened = open_store(store)
    result = evaluate_run(
        run,
        opened,
        split=split,
        unknown=unknown_classes,
        spelling=spelling,
        device=device,
        pixels=pixels,
    )
    if out is not None:
        write_evaluation(out, result, opened[result.split].keys)
    rate = result.samples / result.seconds
    left_out = sum(result.unknown.values())
    if json:
        return print_json(
            {
                **result.metrics(),
                "split": result.split,
                "samples": result.samples,
                "unknown_samples": left_out,
                "unknown_classes": dict(result.unknown),
                "missing_classes": list(result.missing),
                "samples_per_second": rate,
                "data_wait_fraction": result.wait_seconds / result.seconds,
            }
        )
    if result.unknown:
        names = listed(list(result.unknown))
        warn([f"{left_out:,} samples of classes that the run does not know are left out: {names}"])
    if result.missing:
        warn([f"the store lacks classes of the run: {listed(result.missing)}"])
    figures = accuracy_rows(result, samples=result.samples, num_classes=result.num_classes)
    print_table([*figures, ("samples", f"{result.samples:,} ({human_rate(rate)})")])
    return say(f"the tables are at {out}") if out is not None else None
