"""Report of a pretraining run: quality of the features, curves, completed pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from seit.config import flatten, to_mapping
from seit.pretraining.sit import TASKS
from seit.report import Captioned, Figure, Section, figures, image_grid
from seit.training import (
    RUN_NAME,
    THROUGHPUT,
    Curve,
    Run,
    curves,
    footprint_sections,
    origin_sections,
    write_report,
)

_CELL = 160
_NOT_LOSSES = {"step", "split", "lr", "samples_per_second", "data_wait_fraction"}
_FEATURES = (
    Curve("val", "knn_top1", "k-NN", "k-NN top-1", "top-1", top=1.0, is_share=True),
    Curve("val", "linear_top1", "linear", "Linear probe's top-1", "top-1", top=1.0, is_share=True),
    Curve("val", "effective_rank", "rank", "Effective rank", "directions", top=0.0),
    Curve("val", "feature_std", "spread", "Spread of features", "1 = even, 0 = collapsed", top=0.0),
)
_CODES = (
    Curve("val", "loss", "loss", "Validation loss", "cross-entropy in nats"),
    Curve(
        "val",
        "token_accuracy",
        "tokens",
        "Masked-token accuracy",
        "share of hidden tokens",
        top=0.0,
        is_share=True,
    ),
)
_GRADIENTS = tuple(
    Curve("val", f"{task}_gradient", task, f"Pull of {task} at the encoder", "norm of its gradient")
    for task in TASKS
)


def write_pretrain_report(
    run: Run,
    *,
    title: str,
    info: Mapping[str, Any],
    pictures: Sequence[tuple[str, Sequence[Captioned]]] | str,
) -> None:
    """Write `report.html` of a run into its folder.

    ``info`` are the contents of `run.json` of the finished run; ``pictures`` are rows of completed
    samples, or the reason for their absence.
    """
    metrics = run.metrics()
    sections = [
        Section("Result", figures(_tiles(info["result"]))),
        *([Section("Warnings", [], "\n\n".join(info["warnings"]))] if info["warnings"] else []),
        *footprint_sections(info, origin=str(run.path / RUN_NAME)),
        *origin_sections(info, where=str(run.path / RUN_NAME)),
        Section("Features", _charts(metrics, _FEATURES)),
        Section("Learning curves", _charts(metrics, (*_parts(metrics), *_CODES, *_GRADIENTS))),
        _picture_section(pictures),
        Section("Throughput", _charts(metrics, THROUGHPUT)),
    ]
    settings, result = run.settings, info["result"]
    write_report(
        run.path,
        title=f"Run {run.path.name}",
        lead=f"{title[0].upper()}{title[1:]} of {settings.model.name}, "
        f"{result['parameters']:,} parameters, {result['steps']:,} steps of "
        f"{settings.data.batch_size}.",
        sections=sections,
        settings=flatten(to_mapping(settings)),
        environment=info["environment"],
    )


def _tiles(result: Mapping[str, Any]) -> list[Figure]:
    shares = {
        "k-NN top-1": result["knn_top1"],
        "linear probe's top-1": result["linear_top1"],
        "masked-token accuracy": result["token_accuracy"],
    }
    tiles = [Figure(name, f"{value:.1%}") for name, value in shares.items() if value is not None]
    if result["effective_rank"] is not None:
        tiles.append(Figure("effective rank", f"{result['effective_rank']:.1f}", "of the features"))
    rate = Figure("training rate", f"{result['samples_per_second']:.0f}/s", "samples per second")
    return [*tiles, rate]


def _parts(metrics: Sequence[dict[str, Any]]) -> list[Curve]:
    """Return a curve for the training loss and for each of its parts."""
    names = [
        name
        for name in next((entry for entry in metrics if entry["split"] == "train"), {})
        if name not in _NOT_LOSSES
    ]
    return [
        Curve("train", name, name.replace("_", " "), f"Training: {name.replace('_', ' ')}", "")
        for name in names
    ]


def _charts(metrics: Sequence[dict[str, Any]], chosen: Sequence[Curve]) -> list[Markup]:
    """Plot the curves that the metrics have."""
    known = {(entry["split"], key) for entry in metrics for key in entry}
    return curves({"": metrics}, [curve for curve in chosen if (curve.split, curve.key) in known])


def _picture_section(pictures: Sequence[tuple[str, Sequence[Captioned]]] | str) -> Section:
    title = "Completed"
    if isinstance(pictures, str):
        return Section(title, [], f"The samples cannot be shown: {pictures}")
    return Section(
        title,
        image_grid(pictures, title="", cell=_CELL),
        "Samples of the evaluated split as their tokens decode, what of them the network saw, and "
        "with the likeliest code in every hidden cell. Each cell is predicted "
        "by itself, so neighbors need not agree.",
    )
