"""Report of brain scores: lines over depth with the null, ceilings, and the best layers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from markupsafe import Markup
from PIL import Image

from seit.analysis.brain.config import BrainConfig
from seit.analysis.brain.result import BrainResult, LayerBrainScore, SubjectBrainScores
from seit.analysis.brain.significance import least_share
from seit.analysis.depth_lines import CHANCE, score_lines
from seit.report import (
    Figure,
    Section,
    Series,
    figures,
    image_grid,
    line_chart,
    page,
    table,
    write_page,
)


def write_brain_report(
    folder: Path, result: BrainResult, config: BrainConfig, maps: Mapping[str, Path]
) -> None:
    """Write `report.html` into a folder, with pictures of maps by view."""
    best = next(one for one in result.layers if one.name == result.best_layer)
    own = SubjectBrainScores(result.subject, result.layers)
    tiles = figures(
        [
            Figure("best layer", best.name, f"depth {best.depth:.2f}"),
            Figure("its score", f"{best.score:.3f}", f"± {best.error:.3f}"),
            Figure("by chance", f"{best.null_mean:.3f}", f"± {best.null_std:.3f}"),
            *(Figure("ceiling", f"{value:.3f}", kind) for kind, value in result.ceilings.items()),
        ]
    )
    chart = line_chart(
        [line for one in (own, *result.controls) for line in _lines(one)] + _null(result.layers),
        title="Brain score by layer",
        x_label="relative depth",
        y_label="correlation",
    )
    counts = Counter(result.best_layers)
    shares = [
        [name, counts[name], f"{counts[name] / result.targets:.1%}"]
        for name in (layer.name for layer in result.layers)
    ]
    html = page(
        f"Brain scores of {result.subject}",
        lead=f"Correlation of predicted and true responses of {result.people} people, "
        f"{result.targets:,} targets, {result.runs} runs.",
        sections=[
            Section("Best layer", tiles),
            Section(
                "Scores over depth",
                chart,
                "Faint lines are one standard error. Chance is the same for features that were "
                "shifted in time within each run.",
            ),
            *([Section("Map of the best layer", _pictures(maps))] if maps else []),
            *([Section("Against the controls", _paired(result))] if result.paired else []),
            Section(
                "Best layer of each target", table(shares, header=["layer", "targets", "share"])
            ),
            *(
                Section(one.name, _table(one), _on_targets(config))
                for one in (own, *result.controls)
            ),
            Section(
                "Settings",
                table(
                    [[name, str(value)] for name, value in asdict(config).items()],
                    header=["setting", "value"],
                ),
            ),
        ],
    )
    write_page(folder / "report.html", html)


def _pictures(maps: Mapping[str, Path]) -> Markup:
    rows = []
    for view, path in maps.items():
        with Image.open(path) as image:
            rows.append((view, [np.asarray(image.convert("RGB"))]))
    return image_grid(rows, title="Score", cell=720)


def _lines(scores: SubjectBrainScores) -> list[Series]:
    layers = scores.layers
    return score_lines(
        scores.name,
        [one.depth for one in layers],
        [one.score for one in layers],
        [one.error for one in layers],
    )


def _null(layers: Sequence[LayerBrainScore]) -> list[Series]:
    return score_lines(
        CHANCE,
        [one.depth for one in layers],
        [one.null_mean for one in layers],
        [2 * one.null_std for one in layers],
    )


def _paired(result: BrainResult) -> Markup:
    rows = [
        [
            one.control,
            f"{one.layer} against {one.control_layer}",
            f"{one.difference:+.3f}",
            f"{one.error:.3f}",
            f"{one.p:.3g}",
            one.units,
        ]
        for one in result.paired
    ]
    return table(rows, header=["control", "layers", "difference", "±", "p", "paired by"])


def _on_targets(config: BrainConfig) -> str:
    """Return how many targets must be above chance for any to count as found."""
    share = least_share(config.nulls)
    rule = "Targets are found at a rate of false discoveries of 5 %."
    if share > 1:
        return f"{rule} With {config.nulls} shifts none can be found; pass more (--nulls 199)."
    return (
        f"{rule} With {config.nulls} shifts, any are found only if {share:.0%} of all are above "
        "chance together; more shifts (--nulls) ask for fewer."
    )


def _table(scores: SubjectBrainScores) -> Markup:
    rows = [
        [
            one.name,
            f"{one.depth:.2f}",
            f"{one.score:.3f}",
            f"{one.error:.3f}",
            f"{one.null_mean:.3f}",
            f"{one.null_std:.3f}",
            f"{one.p:.3g}",
            one.discovered,
        ]
        for one in scores.layers
    ]
    header = ["layer", "depth", "score", "±", "chance", "±", "p", "targets found"]
    return table(rows, header=header)
