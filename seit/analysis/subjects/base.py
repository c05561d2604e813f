"""Activations of a network for each instance, layer by layer.

Legend: T frames of a clip, D features of a layer, H W token grid.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Activations of one instance; an image is a clip of one frame.

    Attributes:
        row: its number among the subject's instances.
        values: float32 (T, D) by layer; T may differ between layers.
        seconds: duration; 0 for an image.
        tokens: ids (H, W) of the instance, if the subject reads tokens.
    """

    row: int
    values: Mapping[str, npt.NDArray[np.float32]]
    seconds: float = 0.0
    tokens: npt.NDArray[np.int64] | None = None

    def rate(self, layer: str) -> float:
        """Return the frames per second of a layer; 0 for an image."""
        return len(self.values[layer]) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Place:
    """An instance, and where it lies in its file.

    Attributes:
        key: its key.
        file: key of its file; several windows of a clip share one.
        label: index of its class, −1 for none.
        start: seconds from the start of the file; 0 for an image.
        seconds: duration; 0 for an image.
    """

    key: str
    file: str
    label: int
    start: float = 0.0
    seconds: float = 0.0


class Subject(ABC):
    """A network with its inputs.

    Attributes:
        name: its name in tables.
        layers: names of its layers, from the input to the output.
        classes: class names of the instances, indexed by their labels.
        is_random: whether its own weights are random, so that a random twin shows nothing more.
        batch_size: instances of a forward pass.
    """

    name: str
    layers: tuple[str, ...]
    classes: tuple[str, ...]
    is_random: bool = False
    batch_size: int = 1

    @property
    @abstractmethod
    def places(self) -> Sequence[Place]:
        """All instances, in order."""

    @abstractmethod
    def clips(self, rows: Sequence[int] | None = None) -> Iterator[Clip]:
        """Yield the activations of instances, in the same order at each call.

        Args:
            rows: their numbers, rising; None for all.
        """

    def clips_after(self, count: int) -> Iterator[Clip]:
        """Yield the activations of all instances but the first ``count``, as one pass does.

        They pass in the same batches, as activations depend on them in the last digits.
        """
        start = count - count % self.batch_size
        for clip in self.clips(range(start, len(self.places))):
            if clip.row >= count:
                yield clip

    def fingerprint(self) -> str:
        """Return a hash of the contents of all instances; empty if places alone make them."""
        return ""

    @abstractmethod
    def random_twin(self, seed: int) -> "Subject":
        """Return the same network with random weights, on the same inputs."""


def depth_of(layer: str, layers: Sequence[str]) -> float:
    """Return the relative depth of a layer: 0 for the first, 1 for the last."""
    return layers.index(layer) / max(1, len(layers) - 1)
