"""`seit analyze cca` and `seit analyze probe`: what each layer of a network holds."""

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from seit.analysis.journal import (
    LAYERS_NAME,
    Journal,
    Sums,
    finished_result,
    identity_of,
)
from seit.analysis.layers.alignments import Span
from seit.analysis.layers.config import AnalyzeConfig
from seit.analysis.layers.counterparts import Counterpart, counterparts, cut
from seit.analysis.layers.folds import Division, make_folds
from seit.analysis.layers.gather import gather, reduce
from seit.analysis.layers.pooling import Part
from seit.analysis.layers.reduction import fit_components
from seit.analysis.layers.report import write_layers_report
from seit.analysis.layers.result import AnalyzeResult, SubjectScores
from seit.analysis.layers.scores import SCORES, LayerScore, Measured
from seit.analysis.layers.targets import (
    CodesTarget,
    FramesTarget,
    LabelTarget,
    MatrixTarget,
    Selection,
    SpanTarget,
    Target,
)
from seit.analysis.subjects.base import Subject
from seit.analysis.subjects.mel import LAYER as MEL
from seit.analysis.subjects.runs import RunSubject
from seit.documents import reason_of
from seit.errors import UsageError
from seit.files import explained_writes, write_atomically
from seit.npy import NPY_ERRORS
from seit.progress import Count
from seit.training import refuse_label_sets

SPANS: Mapping[str, Part] = {"phone": "middle", "word": "whole"}
"""Targets of alignments, and the frames of a span that count."""
_PILOT_CLIPS = 256
LAYER = "layer:"
"""Before the name of a layer of the subject that others are compared with."""
OF_OTHER = "@"
"""Between the name of another subject and that of its layer."""
_TARGET_DIM = 128
_SURE = 0.03
"""Standard error of an accuracy, above which it is warned of."""
_LOG = logging.getLogger(__name__)


def analyze_layers(
    subject: Subject,
    config: AnalyzeConfig,
    *,
    baselines: Sequence[Subject] = (),
    groups: Sequence[str],
    other: Subject | None = None,
    alignments: Mapping[str, list[Span]] | None = None,
    codes: tuple[int, int] | None = None,
    out: Path | None = None,
    resume: bool = False,
    progress: Count | None = None,
) -> AnalyzeResult:
    """Score every layer of a subject against a target, with controls.

    Args:
        subject: the network with its inputs.
        config: settings.
        baselines: subjects on the same inputs, to compare with.
        groups: group of each instance; no group is in two folds.
        other: the subject that the target names, on the same files.
        alignments: spans of each file, for the targets phone and word.
        codes: levels of the tokenizer and codes of each, for the target codes.
        out: new folder of `layers.json` and `report.html`; None writes nothing.
        resume: continue an interrupted analysis at ``out``, at its sums of the last minute; of a
            finished one, return the result.
        progress: called with (clips done, clips of all passes).

    Raises:
        UsageError: the target does not fit the subject, or there are too few samples or groups.
    """
    target = make_target(
        subject,
        config,
        baselines=baselines,
        other=other,
        alignments=alignments,
        codes=codes,
    )
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
    has_twin = config.random_twin and not subject.is_random
    controls = [*([subject.random_twin(config.seed)] if has_twin else []), *baselines]
    networks = (subject, *controls)
    identity = identity_of(
        networks,
        settings=asdict(config),
        target=[target.name, target.dim, target.fingerprint()],
        sizes=sum(sizes),
    )
    identity["folds"] = hashlib.sha256(folds.tobytes()).hexdigest()
    finished = finished_result(out, LAYERS_NAME, identity, AnalyzeResult, resume=resume)
    if finished is not None:
        return replace(finished, out=out)
    journal = Journal.open(out, identity, resume=resume)
    scored = []
    for number, one in enumerate(networks):
        kept = {layer: journal.score(number, layer, LayerScore) for layer in one.layers}
        missing = [layer for layer, score in kept.items() if score is None]
        passes = journal.sums(f"{number}-sums"), journal.sums(f"{number}-hits")
        for score in _scores(one, missing, target, division, config, passes, progress):
            journal.keep(number, score.name, score)
            kept[score.name] = score
        for sums in passes:
            sums.drop()
        scored.append(SubjectScores(one.name, tuple(score for score in kept.values() if score)))
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
    if SCORES[config.method].is_share:
        _warn_of_few(result)
    if out is not None:
        with explained_writes(out):
            out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / LAYERS_NAME, json.dumps(result.record(), indent=2).encode() + b"\n")
        write_layers_report(out, result, config)
    journal.close()
    return result


def _warn_of_few(result: AnalyzeResult) -> None:
    """Warn of an accuracy of few samples, with its standard error."""
    best = max(one.score for one in result.layers)
    error = math.sqrt(best * (1 - best) / result.samples)
    if error > _SURE:
        _LOG.warning(
            "%d samples are few: the best layer's accuracy of %.3f has a standard error of %.3f; "
            "choose a larger split (--split), or more data",
            *(result.samples, best, error),
        )


def make_target(
    subject: Subject,
    config: AnalyzeConfig,
    *,
    baselines: Sequence[Subject] = (),
    other: Subject | None = None,
    alignments: Mapping[str, list[Span]] | None,
    codes: tuple[int, int] | None,
) -> Target:
    """Return the target that the settings name.

    Raises:
        UsageError: it is unknown, or does not fit the subject.
    """
    selection = Selection(config.fewest, config.most, config.seed)
    if config.target == "label":
        if isinstance(subject, RunSubject):
            refuse_label_sets(
                subject.store,
                [subject.split.name],
                verb="the target label",
                instead="choose the target codes or layer:NAME, or pass numbers as .npy",
            )
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
        if codes is None or not isinstance(subject, RunSubject):
            raise UsageError(
                f"{subject.name} reads no tokens; the target codes is for runs over a store"
            )
        return CodesTarget(*codes, subject.tokens)
    if config.target == MEL:
        found = [one for one in baselines if one.layers == (MEL,)]
        if not found:
            raise UsageError(f"{subject.name} reads no sounds; the target mel is for speech models")
        return frames_target(found[0], MEL, name=MEL)
    if config.target.startswith(LAYER):
        layer = _known_layer(subject, config.target.removeprefix(LAYER))
        return frames_target(subject, layer, name=config.target)
    if other is not None:
        layer = _known_layer(other, config.target.rpartition(OF_OTHER)[2])
        return other_target(subject, other, layer)
    path = Path(config.target)
    if path.suffix != ".npy" or not path.is_file():
        raise UsageError(
            f"the target {config.target!r} is none of label, phone, word, codes, mel, layer:NAME "
            "and SUBJECT@LAYER, and no .npy file; choose one of them"
        )
    try:
        values = np.lib.format.open_memmap(path, mode="r")
    except (OSError, *NPY_ERRORS) as error:
        raise UsageError(f"{path} is no readable .npy file: {reason_of(error)}") from error
    if values.dtype.kind not in "iuf":
        raise UsageError(f"{path} holds {values.dtype}; a target holds numbers")
    return MatrixTarget(np.asarray(values, dtype=np.float64), len(subject.places), name=path.stem)


def frames_target(subject: Subject, layer: str, *, name: str) -> FramesTarget:
    """Read a layer of all clips as a target; a wide one in its principal components.

    Memory is that of the frames: up to 128 numbers each.
    """
    components = fit_components(subject, _pilot(subject), [layer], max_dim=_TARGET_DIM)
    frames = {
        clip.row: reduce(clip.values[layer], components.get(layer)).astype(np.float32)
        for clip in subject.clips()
    }
    return FramesTarget(frames, dim=next(iter(frames.values())).shape[1], name=name)


def other_target(subject: Subject, other: Subject, layer: str) -> FramesTarget:
    """Read a layer of another subject as a target, on the files of both.

    Raises:
        UsageError: an instance is missing in the other's data.
    """
    matches = {match.row: match for match in counterparts(subject, other)}
    components = fit_components(other, _pilot(other), [layer], max_dim=_TARGET_DIM)
    users: dict[int, list[Counterpart]] = {}
    for match in matches.values():
        users.setdefault(match.other, []).append(match)
    frames = {}
    for clip in other.clips(sorted(users)):
        for match in users[clip.row]:
            part = cut(clip, other.places[clip.row], match).values[layer]
            frames[match.row] = reduce(part, components.get(layer)).astype(np.float32)
    return FramesTarget(
        frames,
        dim=next(iter(frames.values())).shape[1],
        name=f"{other.name}{OF_OTHER}{layer}",
        places=subject.places,
        matches=matches,
    )


def other_subject(target: str) -> str | None:
    """Return the subject that a target ``SUBJECT@LAYER`` names; None for other targets."""
    name, mark, _ = target.rpartition(OF_OTHER)
    return name if mark and not target.startswith(LAYER) and Path(target).suffix != ".npy" else None


def _known_layer(subject: Subject, layer: str) -> str:
    if layer not in subject.layers:
        raise UsageError(
            f"{subject.name} has no layer {layer!r}; it has {', '.join(subject.layers)}"
        )
    return layer


def codes_of(subject: Subject) -> tuple[int, int] | None:
    """Return the levels of the tokens that a run reads, and the codes of each; None of others."""
    if not isinstance(subject, RunSubject):
        return None
    return subject.store.levels, int(subject.store.codebook.shape[-2])


def _scores(
    subject: Subject,
    layers: Sequence[str],
    target: Target,
    division: Division,
    config: AnalyzeConfig,
    passes: tuple[Sums, Sums],
    progress: Count | None,
) -> Iterator[LayerScore]:
    """Yield the scores of some layers of a subject."""
    if not layers:
        return
    components = fit_components(subject, _pilot(subject), layers, max_dim=config.max_dim)
    sums = gather(
        subject,
        target,
        division,
        layers=layers,
        components=components,
        num_nulls=config.nulls,
        seed=config.seed,
        kept=passes[0],
        progress=progress,
    )
    measured = Measured(subject, target, sums, division, components, config, passes[1])
    yield from SCORES[config.method].of(measured)


def _pilot(subject: Subject) -> list[int]:
    """Return numbers of clips spread over the data."""
    num_clips = len(subject.places)
    rows = np.linspace(0, num_clips - 1, min(num_clips, _PILOT_CLIPS)).astype(int)
    return [int(row) for row in np.unique(rows)]
