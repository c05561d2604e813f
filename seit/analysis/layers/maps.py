"""`seit analyze cka`: how similar the layers of one or two networks are.

Legend: N layers of one network, M of the other, T frames of a clip.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seit.analysis.journal import CKA_NAME, Journal, finished_result, identity_of
from seit.analysis.layers.counterparts import counterparts, paired_clips
from seit.analysis.layers.gather import reduce
from seit.analysis.layers.pooling import resampled
from seit.analysis.layers.reduction import Components, Pilot
from seit.analysis.layers.similarity import PairSums
from seit.analysis.subjects.base import Clip, Subject
from seit.files import explained_writes, write_atomically
from seit.outcomes import Outcome
from seit.progress import Count
from seit.report import Section, page, similarity_map, write_page

MAX_DIM = 256
"""Features of a layer above which its principal components are used instead."""
MOST_FRAMES = 16
"""Most frames of a clip; more are averaged to this many."""
_PILOT_CLIPS = 256


@dataclass(frozen=True, kw_only=True, repr=False)
class CkaResult(Outcome):
    """Similarity of each pair of layers.

    Attributes:
        subject: the network of the rows.
        other: the network of the columns.
        layers: N names.
        other_layers: M names.
        cka: N rows of M values: unbiased linear CKA, 1 for equal up to rotation and scale, about 0
            for independent.
        samples: frames that it was measured on.
        out: folder of `cka.json` and `report.html`.
    """

    subject: str
    other: str
    layers: tuple[str, ...]
    other_layers: tuple[str, ...]
    cka: tuple[tuple[float, ...], ...]
    samples: int
    out: Path | None = None


def compare_layers(
    subject: Subject,
    other: Subject,
    *,
    out: Path | None = None,
    resume: bool = False,
    progress: Count | None = None,
) -> CkaResult:
    """Compare every layer of a subject with every layer of another, or with its own.

    One pass over the clips of both; memory grows with the number of pairs of layers.

    Args:
        subject: the network of the rows.
        other: the network of the columns, on the same files; may be the same.
        out: new folder of `cka.json` and `report.html`; None writes nothing.
        resume: continue an interrupted comparison at ``out``, from its sums of the last minute; of
            a finished one, return the result.
        progress: called with (clips done, all clips).

    Raises:
        UsageError: an instance is missing in the other's data, or a layer is constant.
    """
    matches = counterparts(subject, other)
    identity = identity_of((subject, other), method="cka")
    finished = finished_result(out, CKA_NAME, identity, CkaResult, resume=resume)
    if finished is not None:
        return replace(finished, out=out)
    journal = Journal.open(out, identity, resume=resume)
    kept, sums = journal.sums("sums"), PairSums((subject.layers, other.layers))
    if (arrays := kept.read()) is not None:
        sums.restore(arrays)
    sides = tuple(_Side.of(one) for one in (subject, other))
    pairs = paired_clips(subject, other, matches[sums.clips :])
    with kept.keeping(pairs, sums.arrays) as rest:
        for left, right in rest:
            count = min(_num_frames(left), _num_frames(right), MOST_FRAMES)
            sums.add(sides[0].frames(left, count), sides[1].frames(right, count))
            if progress is not None:
                progress(sums.clips, len(matches))
    result = CkaResult(
        subject=subject.name,
        other=other.name,
        layers=subject.layers,
        other_layers=other.layers,
        cka=sums.values(),
        samples=sums.samples,
        out=out,
    )
    if out is not None:
        _write(out, result)
    journal.close()
    return result


@dataclass(frozen=True)
class _Side:
    """One of the two networks, with what its layers are shifted and reduced by."""

    layers: tuple[str, ...]
    components: Mapping[str, Components]
    means: Mapping[str, npt.NDArray[np.float64]]

    @classmethod
    def of(cls, subject: Subject) -> "_Side":
        """Fit components and means to a few clips; a mean only guards against cancellation."""
        num_clips = len(subject.places)
        rows = np.unique(np.linspace(0, num_clips - 1, min(num_clips, _PILOT_CLIPS)).astype(int))
        pilot = Pilot(subject.layers, num_clips=len(rows), max_dim=MAX_DIM)
        sums: dict[str, npt.NDArray[np.float64]] = {}
        for clip in subject.clips(rows.tolist()):
            pilot.add(clip)
            for layer in subject.layers:
                mean = clip.values[layer].mean(0, dtype=np.float64)
                sums[layer] = sums[layer] + mean if layer in sums else mean
        components = pilot.components()
        means = {
            layer: reduce(one[None] / len(rows), components.get(layer))[0]
            for layer, one in sums.items()
        }
        return cls(subject.layers, components, means)

    def frames(self, clip: Clip, count: int) -> dict[str, npt.NDArray[np.float64]]:
        """Return ``count`` frames of each layer, near 0 on average."""
        return {
            layer: reduce(resampled(clip.values[layer], count), self.components.get(layer))
            - self.means[layer]
            for layer in self.layers
        }


def _num_frames(clip: Clip) -> int:
    return min(len(values) for values in clip.values.values())


def _write(out: Path, result: CkaResult) -> None:
    with explained_writes(out):
        out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / CKA_NAME, json.dumps(result.record(), indent=2).encode() + b"\n")
    chart = similarity_map(
        np.array(result.cka),
        rows=result.layers,
        columns=result.other_layers,
        title="Similarity of layers",
        note=f"rows: {result.subject} · columns: {result.other}",
    )
    html = page(
        f"Layers of {result.subject} and {result.other}",
        lead=f"Unbiased linear CKA of each pair of layers, on {result.samples:,} frames.",
        sections=[
            Section(
                "Similarity of layers",
                chart,
                "1 for features that are equal up to a rotation and a scale, about 0 for "
                "independent ones.",
            )
        ],
    )
    write_page(out / "report.html", html)
