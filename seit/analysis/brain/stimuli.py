"""Features of stimuli at the rate of the responses, layer by layer.

Legend: V samples of a run, D features.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from seit.analysis.brain.config import BrainConfig, Response
from seit.analysis.brain.responses import OVERSAMPLING, Array, Bins, delayed, followed
from seit.analysis.layers.reduction import fit_components
from seit.analysis.subjects.base import Subject
from seit.errors import UsageError
from seit.numbers import counted

_PILOT_CLIPS = 128


class Follower(ABC):
    """Way in which responses follow a stimulus.

    Args:
        config: settings.
    """

    def __init__(self, config: BrainConfig) -> None:
        self.config = config

    @property
    @abstractmethod
    def steps(self) -> int:
        """Steps per sample of a response in which features are averaged."""

    @abstractmethod
    def follow(self, steps: Array) -> Array:
        """Return the features at the samples of a run, whose steps have means (steps · V, D)."""


class BloodFlow(Follower):
    """Glover's response of blood flow."""

    steps = OVERSAMPLING

    @override
    def follow(self, steps: Array) -> Array:
        return followed(steps, tr=self.config.tr)


class Delays(Follower):
    """Free weights for each of the last samples."""

    steps = 1

    @override
    def follow(self, steps: Array) -> Array:
        return delayed(steps, range(self.config.delays))


RESPONSES: Mapping[Response, type[Follower]] = {"glover": BloodFlow, "delays": Delays}
"""Ways in which responses follow a stimulus, by name."""


def run_features(
    subject: Subject,
    lengths: Mapping[str, int],
    config: BrainConfig,
    *,
    layers: Sequence[str] | None = None,
) -> dict[str, dict[str, Array]]:
    """Return the features (V, D) of each layer and run.

    Windows of a long file are put together by the time at which they start.

    Args:
        subject: the network with its stimuli; the path of a file without suffix names a run.
        lengths: V of each run.
        config: settings.
        layers: layers to read; None for all.

    Raises:
        UsageError: a run has no stimulus, or the stimuli are images.
    """
    places, response = subject.places, RESPONSES[config.response](config)
    if not all(place.seconds for place in places):
        raise UsageError(
            f"{subject.name} reads images, which have no time; brain scores need sounds"
        )
    stem_of = [place.file.rpartition(".")[0] or place.file for place in places]
    missing = sorted(set(lengths) - set(stem_of))
    if missing:
        raise UsageError(
            f"there is no stimulus of {counted(len(missing), 'run')} (the first: {missing[0]}); "
            f"the files of the stimuli are {', '.join(sorted(set(stem_of))[:4])}, …"
        )
    rows = [row for row, stem in enumerate(stem_of) if stem in lengths]
    step = max(1, len(rows) // _PILOT_CLIPS)
    read = subject.layers if layers is None else tuple(layers)
    components = fit_components(subject, rows[::step], read, max_dim=config.max_dim)
    found: dict[str, dict[str, Array]] = {layer: {} for layer in read}
    left, bins = Counter(stem_of[row] for row in rows), dict[tuple[str, str], Bins]()
    for clip in subject.clips(rows):
        place, run = places[clip.row], stem_of[clip.row]
        left[run] -= 1
        for layer in read:
            frames: npt.NDArray[np.floating] = clip.values[layer]
            if layer in components:
                frames = components[layer].apply(frames)
            if (layer, run) not in bins:
                num_steps = lengths[run] * response.steps
                bins[layer, run] = Bins(num_steps, step=config.tr / response.steps)
            onset = config.onset + place.start
            bins[layer, run].add(frames, rate=clip.rate(layer), onset=onset)
            if not left[run]:
                found[layer][run] = response.follow(bins.pop((layer, run)).means())
    return found


def trimmed(runs: Mapping[str, Array], trim: int) -> Iterator[Array]:
    """Yield each run, in order of the names, without ``trim`` samples at either end.

    Raises:
        UsageError: a run is too short.
    """
    for name in sorted(runs):
        if len(runs[name]) <= 2 * trim:
            raise UsageError(
                f"the run {name} has {len(runs[name])} samples; trim {trim} leaves none of them"
            )
        yield runs[name][trim : len(runs[name]) - trim]
