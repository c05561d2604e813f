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
    json: bool = False,
) -> None:
    """Evaluate a finished run on a split of a store, every sample once.

    Args:
        run: A run's folder.
        store: A store made by the same tokenizer.
        split: Which split.
        device: auto, cpu, cuda, mps.
        json: Print one JSON object.
    """
    from seit.report.intervals import MANY_CLASSES
    from seit.train import evaluate_run

    result = evaluate_run(run, store, split=split, device=device)
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
    top5 = [("top-5", f"{result.top5:.4f}")] if len(result.confusion) > MANY_CLASSES else []
    return print_table(
        [
            ("top-1", f"{result.top1:.4f}"),
            *top5,
            ("loss", f"{result.loss:.4f}"),
            ("samples", f"{result.samples:,} ({rate:.0f}/s)"),
        ]
    )
