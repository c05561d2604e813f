"""`seit predict RUN FILES`."""

from pathlib import Path
from typing import TYPE_CHECKING

from seit.cli.integers import Integer
from seit.cli.output import counting_bar, print_lines, print_result, print_table
from seit.errors import SeitError

if TYPE_CHECKING:
    from seit.training import Prediction


def command(
    run: Path,
    files: list[Path],
    /,
    *,
    top: Integer = 5,
    threshold: float | None = None,
    out: Path | None = None,
    device: str = "auto",
    backbone: str | None = None,
    download: bool = False,
    json: bool = False,
) -> None:
    """Predict the classes of raw image or audio files, which are tokenized first.

    Files that cannot be read are listed with the reason, and the exit code is 1.

    Args:
        run: A finished run's folder.
        files: Image files (audio files if the run was trained on audio), folders of them, and
            patterns such as 'photos/*.jpg'.
        top: Number of classes to report.
        threshold: Least probability of a label, for a run that learned several labels per file; 0.5
            by default.
        out: A new CSV file for the results, written as they come.
        device: auto, cpu, cuda, mps.
        backbone: hf: and the folder of the speech model, for a run that tuned one or takes its
            units.
        download: Allow a speech model's name on the hub to be downloaded; no code of it is run.
        json: Print one JSON object.
    """
    from seit.api import PredictTable, predict

    with counting_bar("predicting", "files") as progress:
        result = predict(
            run,
            files=files,
            top=top,
            threshold=threshold,
            out=out,
            device=device,
            backbone=backbone,
            download=download,
            progress=progress if json or out is not None else None,
            each=None if json or out is not None else _print,
        )
    total = result.files if isinstance(result, PredictTable) else len(result.predictions)
    if json:
        print_result(result)
    elif isinstance(result, PredictTable):
        print_table(
            [
                ("files", f"{total:,}, of which {result.unreadable:,} cannot be read"),
                ("results", str(out)),
            ]
        )
    if result.unreadable:
        raise SeitError(
            f"{result.unreadable:,} of {total:,} files cannot be read, such as "
            f"{result.first_unreadable}; all others are named"
        )


def _print(prediction: "Prediction") -> None:
    if prediction.error is not None:
        lines = [f"  unreadable: {prediction.error}"]
    else:
        named = [f"  {share:6.1%}  {name}" for name, share in prediction.classes]
        lines = named or ["  no label"]
    print_lines([prediction.file, *lines])
