"""`seit eval RUN STORE`."""

from pathlib import Path

from seit.cli.output import print_json, print_table


def command(
    run: Path,
    store: str,
    /,
    *,
    split: str = "val",
    device: str = "auto",
    pixels: str | None = None,
    json: bool = False,
) -> None:
    """Evaluate a finished run on a split of a store, every sample once.

    Args:
        run: A run's folder.
        store: A store made by the same tokenizer.
        split: Which split.
        device: auto, cpu, cuda, mps.
        pixels: SRC of the images, for a run that was trained on pixels.
        json: Print one JSON object.
    """
    from seit.train import evaluate_run

    result = evaluate_run(run, store, split=split, device=device, pixels=pixels)
    rate = result.samples / result.seconds
    if json:
        return print_json(
            {
                **result.metrics(),
                "samples": result.samples,
                "samples_per_second": rate,
                "data_wait_fraction": result.wait_seconds / result.seconds,
            }
        )
    return print_table(
        [
            ("top-1", f"{result.top1:.4f}"),
            ("top-5", f"{result.top5:.4f}"),
            ("loss", f"{result.loss:.4f}"),
            ("samples", f"{result.samples:,} ({rate:.0f}/s)"),
        ]
    )
