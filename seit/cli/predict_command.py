"""`seit predict RUN FILES`."""

from pathlib import Path

from seit.cli.output import print_json, print_lines
from seit.errors import UsageError


def command(
    run: Path,
    files: list[Path],
    /,
    *,
    top: int = 5,
    device: str = "auto",
    json: bool = False,
) -> None:
    """Name the classes of raw image or audio files; they are tokenized first.

    Args:
        run: A finished run's folder.
        files: Image files; audio files if the run was trained on audio.
        top: How many classes to name.
        device: auto, cpu, cuda, mps.
        json: Print one JSON object.
    """
    if top < 1:
        raise UsageError(f"--top is {top}; at least one class is named")
    from seit.train import predict

    predictions = predict(run, files, top=top, device=device)
    if json:
        return print_json(
            {
                "predictions": [
                    {
                        "file": entry.file,
                        "classes": [
                            {"class": name, "probability": value} for name, value in entry.classes
                        ],
                    }
                    for entry in predictions
                ]
            }
        )
    for entry in predictions:
        print_lines([entry.file])
        print_lines([f"  {value:6.1%}  {name}" for name, value in entry.classes])
    return None
