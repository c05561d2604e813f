"""Result of a layer-wise analysis."""

from dataclasses import dataclass
from pathlib import Path

from seit.analysis.layers.scores import LayerScore
from seit.outcomes import Outcome


@dataclass(frozen=True)
class SubjectScores:
    """Scores of the layers of one subject.

    Attributes:
        name: the subject.
        layers: its layers, from the input to the output.
    """

    name: str
    layers: tuple[LayerScore, ...]


@dataclass(frozen=True, kw_only=True, repr=False)
class AnalyzeResult(Outcome):
    """Scores of the layers of a subject, of its controls, and how they were measured.

    Attributes:
        subject: the subject.
        method: figure that ``score`` is.
        target: what layers were compared with.
        layers: layers of the subject, from the input to the output.
        best_layer: layer with the highest score.
        controls: the same network with random weights, and baselines of its input.
        samples: samples of the target.
        types: classes, phones or words used; 0 for other targets.
        folds: folds of cross-validation.
        groups: groups that were kept together, such as speakers or files.
        out: folder of `layers.json` and `report.html`.
    """

    subject: str
    method: str
    target: str
    layers: tuple[LayerScore, ...]
    best_layer: str
    controls: tuple[SubjectScores, ...]
    samples: int
    types: int
    folds: int
    groups: int
    out: Path | None = None
