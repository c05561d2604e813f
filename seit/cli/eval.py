"""`seit eval RUN STORE`."""

from pathlib import Path
from typing import Literal

from seit.cli.figures import accuracy_rows
from seit.cli.output import print_result, print_table, say, warn
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
    root: Path | None = None,
    tta: bool = False,
    backbone: str | None = None,
    download: bool = False,
    json: bool = False,
) -> None:
    """Evaluate a finished run on a split of a store, every sample once.

    Classes are matched by name: the store may list them in another order, or lack some.

    Args:
        run: A run's folder.
        store: A store made by the same tokenizer; sounds, for a run that tuned a speech model.
        split: Split to evaluate. By default that which the run was evaluated on (its
            --data.val_split); val or the only one, if the store lacks it.
        unknown_classes: Samples of classes that the run does not know: stop with an error, or skip
            and count them.
        spelling: exact matches equal names only; loose also those that differ in case, Unicode
            form, blanks, underscores or hyphens.
        out: A new folder for CSV tables: precision, recall, F1 and support by class, the confusion
            matrix, the prediction of each sample. A new .csv file gets only the first.
        device: auto, cpu, cuda, mps.
        pixels: SRC of the images, for a run that was trained on pixels.
        root: Folder that the relative paths of a table of --pixels start at; its own by default.
        tta: Average the probabilities over crops of the grid, and mirror images where the tokenizer
            allows them (test-time augmentation).
        backbone: hf: and the folder of the speech model, for a run that tuned one.
        download: Allow a speech model's name on the hub to be downloaded; no code of it is run.
        json: Print one JSON object.
    """
    from seit.api import evaluate
    from seit.classes import listed

    result = evaluate(
        run,
        store=store,
        split=split,
        unknown_classes=unknown_classes,
        spelling=spelling,
        out=out,
        device=device,
        backbone=backbone,
        download=download,
        pixels=pixels,
        root=root,
        tta=tta,
    )
    if json:
        return print_result(result)
    if result.unknown_classes:
        names = listed(list(result.unknown_classes))
        if result.scores is None:
            text = f"{result.unknown_samples:,} samples of classes that the run does not know are "
            text += f"left out: {names}"
        else:
            text = f"labels that the run does not know are left out: {names}; "
            text += f"{result.unknown_samples:,} samples without another label are skipped"
        warn([text])
    if result.missing_classes:
        warn([f"the store lacks classes of the run: {listed(result.missing_classes)}"])
    figures = accuracy_rows(result, samples=result.samples, num_classes=result.num_classes)
    rate = human_rate(result.samples_per_second)
    views = [("views", f"{result.views} of each sample")] if tta else []
    samples = ("samples", f"{result.samples:,} of {result.split!r} ({rate})")
    print_table([*figures, *views, samples])
    return say(f"the tables are at {out}") if out is not None else None
