"""Result of brain scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from seit.outcomes import Outcome


@dataclass(frozen=True, kw_only=True)
class LayerBrainScore:
    """Score of one layer.

    Attributes:
        name: the layer.
        depth: its relative depth, 0–1.
        score: correlation of predicted and true responses, a mean over people and targets.
        error: standard error over people, or over targets of a single person.
        null_mean: the same for features shifted in time.
        null_std: standard deviation over the shifts.
        p: probability of such a score by chance; at least 1 / (shifts + 1).
        discovered: targets predicted better than by chance, at a rate of false discoveries of 5 %.
    """

    name: str
    depth: float
    score: float
    error: float
    null_mean: float
    null_std: float
    p: float
    discovered: int


@dataclass(frozen=True)
class SubjectBrainScores:
    """Scores of the layers of one network."""

    name: str
    layers: tuple[LayerBrainScore, ...]


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Difference between the best layers of the subject and of a control.

    Attributes:
        control: the control.
        layer: best layer of the subject.
        control_layer: best layer of the control.
        difference: mean difference of scores.
        error: its standard error.
        p: probability by chance, from flipped signs, two-sided.
        units: what was paired: people, or targets of a single person.
    """

    control: str
    layer: str
    control_layer: str
    difference: float
    error: float
    p: float
    units: str


@dataclass(frozen=True, kw_only=True, repr=False)
class BrainResult(Outcome):
    """Brain scores of a subject and its controls.

    Attributes:
        subject: the network.
        layers: its layers, from the input to the output.
        best_layer: layer with the highest score.
        controls: the same network with random weights, and baselines of its input.
        paired: comparison with each control.
        people: number of people.
        targets: number of targets.
        runs: number of runs.
        ceilings: noise ceilings by kind; empty for one person.
        best_layers: best layer of each target.
        out: folder of `brain.json`, `scores.safetensors` and `report.html`.
    """

    subject: str
    layers: tuple[LayerBrainScore, ...]
    best_layer: str
    controls: tuple[SubjectBrainScores, ...]
    paired: tuple[Paired, ...]
    people: int
    targets: int
    runs: int
    ceilings: Mapping[str, float]
    best_layers: tuple[str, ...]
    out: Path | None = None
