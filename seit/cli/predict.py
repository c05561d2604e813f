"""`seit predict RUN FILES`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from seit.cli.output import print_json, print_lines, print_table, progress_bar
from seit.errors import SeitError, UsageError

if TYPE_CHECKING:
    from seit.training import Prediction


def command(
    run: Path,
    files: list[Path],
    /,
    *,
    top: int = 5,
    out: Path | None = None,
    device: str = "auto",
    json: bool = False,
) -> None:
    """Name the classes of raw image or audio files; they are tokenized first.

    Files that cannot be read are listed with the reason, and the exit code is 1.

    Args:
        run: A finished run's folder.
        files: Image files (audio files if the run was trained on audio), folders of them, and
            patterns such as 'photos/*.jpg'.
        top: How many classes to name.
        out: A new CSV file for the results, written as they come.
        device: auto, cpu, cuda, mps.
        json: Print one JSON object.
    """
    if top < 1:
        raise UsageError(f"--top is {top}; at least one class is named")
    from seit.files import check_new_file
    from seit.training import Predictor, list_files

    if out is not None:
        check_new_file(out)
    predictor = Predictor(run, top=top, device=device)
    listed = list_files(files, predictor.modality)
    predictions = predictor(listed)
    if out is not None:
        unreadable = _write(out, predictions, len(listed), predictor.top)
        _print_counts(out, len(listed), len(unreadable), json)
    elif json:
        found = list(predictions)
        unreadable = [entry.file for entry in found if entry.error is not None]
        print_json({"predictions": list(map(_record, found)), "unreadable": len(unreadable)})
    else:
        unreadable = []
        for entry in predictions:
            print_lines([entry.file, *_lines(entry)])
            unreadable += [entry.file] if entry.error is not None else []
    if unreadable:
        raise SeitError(
            f"{len(unreadable):,} of {len(listed):,} files cannot be read, such as "
            f"{unreadable[0]}; all others are named"
        )


def _write(out: Path, predictions: Any, total: int, top: int) -> list[str]:
    """Write a table; returns the files that cannot be read."""
    from seit.training import prediction_table

    unreadable = []
    with progress_bar("predicting", "files") as bar, prediction_table(out, top=top) as table:
        for done, entry in enumerate(predictions, 1):
            table.add(entry)
            unreadable += [entry.file] if entry.error is not None else []
            bar(done, total, "")
    return unreadable


def _print_counts(out: Path, total: int, unreadable: int, json: bool) -> None:
    if json:
        return print_json({"out": str(out), "files": total, "unreadable": unreadable})
    return print_table(
        [("files", f"{total:,}, of which {unreadable:,} cannot be read"), ("results", str(out))]
    )


def _record(entry: "Prediction") -> dict[str, Any]:
    if entry.error is not None:
        return {"file": entry.file, "classes": [], "error": entry.error}
    named = [{"class": name, "probability": value} for name, value in entry.classes]
    return {"file": entry.file, "classes": named}


def _lines(entry: "Prediction") -> list[str]:
    if entry.error is not None:
        return [f"  unreadable: {entry.error}"]
    return [f"  {value:6.1%}  {name}" for name, value in entry.classes]
