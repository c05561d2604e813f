"""`seit analyze cca` and `seit analyze probe`: what each layer of a network holds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from seit.analysis.layers.alignments import Span
from seit.analysis.layers.config import AnalyzeConfig
from seit.analysis.layers.folds import make_folds
from seit.analysis.layers.gather import Division, gather
from seit.analysis.layers.pooling import Part
from seit.analysis.layers.reduction import fit_components
from seit.analysis.layers.report import write_layers_report
from seit.analysis.layers.result import AnalyzeResult, SubjectScores
from seit.analysis.layers.scores import SCORES, LayerScore, Measured
from seit.analysis.layers.targets import (
    CodesTarget,
    LabelTarget,
    MatrixTarget,
    Selection,
    SpanTarget,
    Target,
)
from seit.analysis.subjects.base import Subject
from seit.errors import UsageError
from seit.files import explained_writes, write_atomically
from seit.progress import Count
from seit.shards import Store

RESULT_NAME = "layers.json"
SPANS: Mapping[str, Part] = {"phone": "middle", "word": "whole"}
"""Targets of alignments, and the frames of a span that count."""
_PILOT_CLIPS = 256


def analyze_layers(
    subject: Subject,
    config: AnalyzeConfig,
    *,
    baselines: Sequence[Subject] = (),
    groups: Sequence[str],
    alignments: Mapping[str, list[Span]] | None = None,
    num_codes: int | None = None,
    out: Path | None = None,
    progress: Count | None = None,
) -> AnalyzeResult:
    """Score every layer of a subject against a target, with controls.

    Args:
        subject: the network with its inputs.
        config: settings.
        baselines: subjects on the same inputs, to compare with.
        groups: group of each instance; no group is in two folds.
        alignments: spans of each file, for the targets phone and word.
        num_codes: codes of the tokenizer, for the target codes.
        out: new folder of `layers.json` and `report.html`; None writes nothing.
        progress: called with (clips done, clips of all passes).

    Raises:
        UsageError: the target does not fit the subject, or there are too few samples or groups.
    """
    target = make_target(subject, config, alignments=alignments, num_codes=num_codes)
    if SCORES[config.method].needs_types and not target.types:
        raise UsageError(
            f"a probe needs classes, and the target {target.name} has none; choose label, phone or "
            "word, or the method r2"
        )
    sizes = [target.size(row) for row in range(len(subject.places))]
    used = [row for row, size in enumerate(sizes) if size]
    folds = np.zeros(len(sizes), dtype=np.int64)
    folds[used] = make_folds(
        [groups[row] for row in used],
        [sizes[row] for row in used],
        num_folds=config.folds,
        seed=config.seed,
    )
    division = Division(folds, config.folds)
    controls = [*([subject.random_twin(config.seed)] if config.random_twin else []), *baselines]
    scored = [
        SubjectScores(one.name, tuple(_scores(one, target, division, config, progress)))
        for one in (subject, *controls)
    ]
    own = scored[0].layers
    result = AnalyzeResult(
        subject=subject.name,
        method=config.method,
        target=target.name,
        layers=own,
        best_layer=max(own, key=lambda one: one.score).name,
        controls=tuple(scored[1:]),
        samples=sum(sizes),
        types=len(target.types),
        folds=config.folds,
        groups=len({groups[row] for row in used}),
        out=out,
    )
    if out is not None:
        with explained_writes(out):
            out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / RESULT_NAME, json.dumps(result.record(), indent=2).encode() + b"\n")
        write_layers_report(out, result, config)
    return result


def make_target(
    subject: Subject,
    config: AnalyzeConfig,
    *,
    alignments: Mapping[str, list[Span]] | None,
    num_codes: int | None,
) -> Target:
    """Return the target that the settings name.

    Raises:
        UsageError: it is unknown, or does not fit the subject.
    """
    selection = Selection(config.fewest, config.most, config.seed)
    if config.target == "label":
        return LabelTarget(subject.places, subject.classes, selection)
    if config.target in SPANS:
        if alignments is None:
            raise UsageError(
                f"the target {config.target} needs --align: a table of key,start,end,label or a "
                "folder of TextGrids"
            )
        return SpanTarget(
            subject.places,
            alignments,
            part=SPANS[config.target],
            selection=selection,
            name=config.target,
        )
    if config.target == "codes":
        if num_codes is None:
            raise UsageError(
                f"{subject.name} reads no tokens; the target codes is for runs over a store"
            )
        return CodesTarget(num_codes)
    path = Path(config.target)
    if path.suffix != ".npy" or not path.is_file():
        raise UsageError(
            f"the target {config.target!r} is none of label, phone, word and codes, and no .npy "
            "file; choose one of them"
        )
    try:
        values = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no readable .npy file ({error})") from error
    if values.dtype.kind not in "iuf":
        raise UsageError(f"{path} holds {values.dtype}; a target holds numbers")
    return MatrixTarget(np.asarray(values, dtype=np.float64), len(subject.places), name=path.stem)


def codes_of(store: Store) -> int:
    """Return the number of codes of a store's tokenizer."""
    return int(store.codebook.shape[-2])


def _scores(
    subject: Subject,
    target: Target,
    division: Division,
    config: AnalyzeConfig,
    progress: Count | None,
) -> list[LayerScore]:
    layers, num_clips = subject.layers, len(subject.places)
    pilot = np.unique(np.linspace(0, num_clips - 1, min(num_clips, _PILOT_CLIPS)).astype(int))
    components = fit_components(subject.clips(pilot.tolist()), layers, max_dim=config.max_dim)
    sums = gather(
        subject,
        target,
        division,
        layers=layers,
        components=components,
        num_nulls=config.nulls,
        seed=config.seed,
        progress=progress,
    )
    measured = Measured(subject, target, sums, division, components, config)
    return SCORES[config.method].of(measured)
