"""`seit analyze brain`: how well each layer predicts responses to the same stimuli.

As in Millet et al., "Toward a realistic model of speech processing in the brain with
self-supervised learning" (arXiv 2206.01685), but for the standardization, which here sees training
samples alone, and the folds, which are whole runs.

Legend: S people, M targets.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from seit.analysis.brain.config import BrainConfig
from seit.analysis.brain.encoding import encode, make_folds
from seit.analysis.brain.recordings import Recordings
from seit.analysis.brain.report import write_brain_report
from seit.analysis.brain.responses import Array
from seit.analysis.brain.result import BrainResult, LayerBrainScore, Paired, SubjectBrainScores
from seit.analysis.brain.significance import (
    discoveries,
    left_out_ceiling,
    null_scores,
    p_values,
    pairwise_ceiling,
    sign_flip,
)
from seit.analysis.brain.stimuli import run_features, trimmed
from seit.analysis.journal import BRAIN_NAME, Journal, finished_result, identity_of
from seit.analysis.subjects.base import Subject, depth_of
from seit.errors import UsageError
from seit.files import explained_writes, write_atomically
from seit.progress import Count
from seit.tensors import array_bytes

SCORES_NAME, MAPS_NAME = "scores.safetensors", "maps"


@dataclass(frozen=True)
class _Scores:
    """Scores of the layers of one network.

    Attributes:
        layers: summaries.
        of_people: scores (S, M) of each layer.
    """

    layers: tuple[LayerBrainScore, ...]
    of_people: Mapping[str, Array]


def score_brain(
    subject: Subject,
    recordings: Recordings,
    config: BrainConfig,
    *,
    baselines: Sequence[Subject] = (),
    out: Path | None = None,
    resume: bool = False,
    progress: Count | None = None,
) -> BrainResult:
    """Score every layer of a subject, with controls.

    Args:
        subject: the network with its stimuli.
        recordings: responses of people.
        config: settings.
        baselines: subjects on the same stimuli, to compare with.
        out: new folder of `brain.json`, `scores.safetensors` (float64 (S, M) by layer), `maps` of
            responses from volumes, and `report.html`; None writes nothing.
        resume: continue an interrupted analysis at ``out`` with the layers that it lacks; of a
            finished one, return the result.
        progress: called with (layers done, all layers).

    Raises:
        UsageError: stimuli and responses do not fit together.
    """
    lengths = _lengths(recordings)
    has_twin = config.random_twin and not subject.is_random
    controls = [*([subject.random_twin(config.seed)] if has_twin else []), *baselines]
    networks = [subject, *controls]
    total = sum(len(one.layers) for one in networks)
    done = 0
    scored: list[_Scores] = []
    heard = hashlib.sha256()
    for values in (values for own in recordings.runs.values() for values in own.values()):
        heard.update(np.ascontiguousarray(values).tobytes())
    identity = identity_of(networks, settings=asdict(config), responses=heard.hexdigest())
    finished = finished_result(out, BRAIN_NAME, identity, BrainResult, resume=resume)
    if finished is not None:
        return replace(finished, out=out)
    journal = Journal.open(out, identity, resume=resume)
    for number, network in enumerate(networks):
        kept = {layer: journal.score(number, layer, LayerBrainScore) for layer in network.layers}
        missing = [layer for layer, score in kept.items() if score is None]
        features = run_features(network, lengths, config, layers=missing) if missing else {}
        layers, of_people = [], {}
        for layer, summary in kept.items():
            if summary is None:
                summary, of_people[layer] = _layer(
                    layer, network.layers, features.pop(layer), recordings, config
                )
                journal.keep(number, layer, summary, of_people[layer])
            else:
                of_people[layer] = journal.array(number, layer)
            layers.append(summary)
            done += 1
            if progress is not None:
                progress(done, total)
        scored.append(_Scores(tuple(layers), of_people))
    own = scored[0]
    best = max(own.layers, key=lambda one: one.score).name
    names = np.array(subject.layers)
    map_of_best = np.stack([own.of_people[layer].mean(0) for layer in subject.layers]).argmax(0)
    result = BrainResult(
        subject=subject.name,
        layers=own.layers,
        best_layer=best,
        controls=tuple(
            SubjectBrainScores(network.name, one.layers)
            for network, one in zip(controls, scored[1:], strict=True)
        ),
        paired=tuple(
            _paired(network.name, own, one, best)
            for network, one in zip(controls, scored[1:], strict=True)
        ),
        people=len(recordings.runs),
        targets=recordings.num_targets,
        runs=len(lengths),
        ceilings=_ceilings(recordings, config),
        best_layers=tuple(names[map_of_best].tolist()),
        out=out,
    )
    if out is not None:
        _write(out, result, own.of_people, recordings, config)
    journal.close()
    return result


def _lengths(recordings: Recordings) -> dict[str, int]:
    """Return the samples of each run, which all people share.

    Raises:
        UsageError: they differ, or a run of someone is missing.
    """
    people = list(recordings.runs)
    first = recordings.runs[people[0]]
    for person in people:
        own = recordings.runs[person]
        if missing := sorted(set(first) ^ set(own)):
            raise UsageError(
                f"the run {missing[0]} is not there for both {people[0]} and {person}; all must "
                "have the same runs"
            )
        for run, values in own.items():
            if len(values) != len(first[run]):
                raise UsageError(
                    f"the run {run} has {len(first[run])} samples for {people[0]} and "
                    f"{len(values)} for {person}; both must be equal"
                )
    return {run: len(values) for run, values in first.items()}


def _layer(
    layer: str,
    layers: Sequence[str],
    features: Mapping[str, Array],
    recordings: Recordings,
    config: BrainConfig,
) -> tuple[LayerBrainScore, Array]:
    x = list(trimmed(features, config.trim))
    gap, least = (round(seconds / config.tr) for seconds in (config.gap, config.shift))
    scores, nulls = [], []
    for own in recordings.runs.values():
        y = list(trimmed(own, config.trim))

        def score(given: Sequence[Array], y: list[Array] = y) -> Array:
            return encode(given, y, num_blocks=config.folds, gap=gap)

        scores.append(score(x))
        nulls.append(
            null_scores(score, x, draws=config.nulls, least=max(1, least), seed=config.seed)
        )
    of_people = np.stack(scores)
    mean, null = of_people.mean(0), np.mean(nulls, axis=0)
    p = p_values(mean, null)
    return (
        LayerBrainScore(
            name=layer,
            depth=depth_of(layer, layers),
            score=float(mean.mean()),
            error=_error(of_people),
            null_mean=float(null.mean()),
            null_std=float(null.mean(1).std(ddof=1)) if len(null) > 1 else 0.0,
            p=float(((null.mean(1) >= mean.mean()).sum() + 1) / (len(null) + 1)),
            discovered=int(discoveries(p).sum()),
        ),
        of_people,
    )


def _error(of_people: Array) -> float:
    """Return the standard error over people, or over targets of a single person."""
    means = of_people.mean(1) if len(of_people) > 1 else of_people[0]
    return float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else 0.0


def _paired(name: str, own: _Scores, other: _Scores, best: str) -> Paired:
    """Compare the best layers of two networks, by people or by targets of a single person."""
    theirs = max(other.layers, key=lambda one: one.score).name
    difference = own.of_people[best] - other.of_people[theirs]
    units = difference.mean(1) if len(difference) > 1 else difference[0]
    return Paired(
        control=name,
        layer=best,
        control_layer=theirs,
        difference=float(units.mean()),
        error=float(units.std(ddof=1) / np.sqrt(len(units))) if len(units) > 1 else 0.0,
        p=sign_flip(units) if len(units) > 1 else 1.0,
        units="people" if len(difference) > 1 else "targets",
    )


def _ceilings(recordings: Recordings, config: BrainConfig) -> dict[str, float]:
    """Return noise ceilings by kind, as means over targets; empty for a single person."""
    people = [list(trimmed(own, config.trim)) for own in recordings.runs.values()]
    if len(people) < 2:
        return {}
    lengths, gap = [len(run) for run in people[0]], round(config.gap / config.tr)
    tested = [fold.test for fold in make_folds(lengths, num_blocks=config.folds, gap=gap)]
    whole = [np.concatenate(runs) for runs in people]
    stretches = [[own[first:stop] for first, stop in tested] for own in whole]
    return {
        "one person, from pairs": float(pairwise_ceiling(stretches).mean()),
        "one person, lower bound from the others' mean": float(left_out_ceiling(stretches).mean()),
    }


def _write(
    out: Path,
    result: BrainResult,
    of_people: Mapping[str, Array],
    recordings: Recordings,
    config: BrainConfig,
) -> None:
    with explained_writes(out):
        out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / SCORES_NAME, array_bytes(dict(of_people)))
    write_atomically(out / BRAIN_NAME, json.dumps(result.record(), indent=2).encode() + b"\n")
    maps = {} if recordings.space is None else _maps(out, result, of_people, recordings)
    write_brain_report(out, result, config, maps)


def _maps(
    out: Path, result: BrainResult, of_people: Mapping[str, Array], recordings: Recordings
) -> dict[str, Path]:
    from seit.analysis.brain.maps import write_maps

    means = {layer: values.mean(0) for layer, values in of_people.items()}
    return write_maps(out / MAPS_NAME, recordings, means, result.best_layer)
