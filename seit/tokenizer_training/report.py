"""Report of a training: figures, learning curves and settings."""

from collections.abc import Mapping
from typing import Any

from seit.config import flatten, to_mapping
from seit.report import Section, table
from seit.training import THROUGHPUT, Curve, Run, curves, write_report

_CURVES = (
    Curve("train", "loss", "loss", "Training loss", "loss"),
    Curve("train", "psnr_db", "PSNR", "PSNR of training crops", "dB"),
)


def write_training_report(run: Run, config: Any, info: Mapping[str, Any], *, title: str) -> None:
    """Write `report.html` of a finished training, with ``info`` of `run.json`."""
    metrics = {"": run.metrics()}
    rows = [[name, _text(value)] for name, value in info["result"].items() if value is not None]
    noted = {name for line in metrics[""] for name in line}
    shown = [curve for curve in _CURVES if curve.key in noted]
    write_report(
        run.path,
        title=f"Run {run.path.name}",
        lead=f"{title}, {config.steps:,} steps of {config.batch_size}.",
        sections=[
            Section("Result", table(rows, header=["figure", "held out"])),
            Section("Learning curves", curves(metrics, shown)),
            Section("Throughput", curves(metrics, THROUGHPUT)),
        ],
        settings=flatten(to_mapping(config)),
        environment=info["environment"],
    )


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
