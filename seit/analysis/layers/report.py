"""Report of a layer-wise analysis: scores over depth with their null, and a table."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from markupsafe import Markup

from seit.analysis.depth_lines import CHANCE, score_lines
from seit.analysis.layers.config import AnalyzeConfig
from seit.analysis.layers.result import AnalyzeResult, SubjectScores
from seit.analysis.layers.scores import SCORES, LayerScore, Score
from seit.report import Figure, Section, Series, figures, line_chart, page, table, write_page


def write_layers_report(folder: Path, result: AnalyzeResult, config: AnalyzeConfig) -> None:
    """Write `report.html` into a folder."""
    score = SCORES[config.method]
    label = score.label
    best = next(one for one in result.layers if one.name == result.best_layer)
    own = SubjectScores(result.subject, result.layers)
    tiles = figures(
        [
            Figure("best layer", best.name, f"depth {best.depth:.2f}"),
            Figure("its score", _shown(best.score, score), f"± {best.std:.3f} over folds"),
            Figure("by chance", _shown(best.null_mean, score), f"± {best.null_std:.3f}"),
            Figure("samples", result.samples, f"of {result.groups:,} groups"),
        ]
    )
    chart = line_chart(
        [line for one in (own, *result.controls) for line in _lines(one)] + _null(result.layers),
        title=f"{label.capitalize()} by layer",
        x_label="relative depth",
        y_label=score.axis,
        y_format="percent" if score.is_share else "number",
    )
    html = page(
        f"Layers of {result.subject}",
        lead=f"{label.capitalize()} of each layer with the target {result.target}, over "
        f"{result.folds} folds that share no group.",
        sections=[
            Section("Best layer", tiles),
            Section(
                "Scores over depth",
                chart,
                "Faint lines are one standard deviation over the folds. The line called chance is "
                "the same figure for targets that were rearranged among the samples.",
            ),
            *(Section(one.name, _table(one, score)) for one in (own, *result.controls)),
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


def _lines(scores: SubjectScores) -> list[Series]:
    layers = scores.layers
    return score_lines(
        scores.name,
        [one.depth for one in layers],
        [one.score for one in layers],
        [one.std for one in layers],
    )


def _null(layers: Sequence[LayerScore]) -> list[Series]:
    return score_lines(
        CHANCE,
        [one.depth for one in layers],
        [one.null_mean for one in layers],
        [2 * one.null_std for one in layers],
    )


def _table(scores: SubjectScores, score: Score) -> Markup:
    rows = [
        [
            one.name,
            f"{one.depth:.2f}",
            _shown(one.score, score),
            f"{one.std:.3f}",
            _shown(one.null_mean, score),
            f"{one.null_std:.3f}",
            None if one.weighted is None else f"{one.weighted:.3f}",
            None if one.train is None else f"{one.train:.3f}",
            one.dim,
            f"{one.variance:.1%}",
        ]
        for one in scores.layers
    ]
    header = ["layer", "depth", "score", "± folds", "chance", "±", "PWCCA", "training CCA"]
    return table(rows, header=[*header, "features", "variance kept"])


def _shown(value: float, score: Score) -> str:
    return f"{value:.1%}" if score.is_share else f"{value:.3f}"
