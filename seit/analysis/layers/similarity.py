"""Sums of all pairs of layers of two networks, which can be written down and continued.

Legend: T frames of a clip, D features.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from seit.analysis.layers.cka import Hsic, cka_of
from seit.errors import DamagedError

_DONE = "clips"
Views = Mapping[str, npt.NDArray[np.float64]]
"""Frames (T, D) of each layer."""


class PairSums:
    """HSIC of each layer of one network with each of another, and with itself.

    Args:
        layers: names of the layers of both networks.

    Attributes:
        clips: number of clips added.
    """

    def __init__(self, layers: tuple[Sequence[str], Sequence[str]]) -> None:
        self._layers = layers
        self._sums: dict[str, Hsic] = {}
        self.clips = 0

    def add(self, first: Views, second: Views) -> None:
        """Add a clip: as many frames of each layer of both networks."""
        for side, views in enumerate((first, second)):
            for layer, x in views.items():
                self._sum(f"{side}/{layer}", x, x)
        for one, x in first.items():
            for two, y in second.items():
                self._sum(f"{one}/{two}", x, y)
        self.clips += 1

    def _sum(self, name: str, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> None:
        self._sums.setdefault(name, Hsic(x.shape[1], y.shape[1])).add(x, y)

    @property
    def samples(self) -> int:
        """Frames added."""
        return next(iter(self._sums.values())).count

    def values(self) -> tuple[tuple[float, ...], ...]:
        """Return the CKA of each layer of the first network (rows) with each of the second.

        Raises:
            UsageError: there are too few frames, or a layer is constant.
        """
        return tuple(
            tuple(
                cka_of(self._sums[f"{one}/{two}"], self._sums[f"0/{one}"], self._sums[f"1/{two}"])
                for two in self._layers[1]
            )
            for one in self._layers[0]
        )

    def arrays(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return all sums by name, to continue from."""
        found = {_DONE: np.array([self.clips], dtype=np.float64)}
        for name, one in self._sums.items():
            found |= {f"{name}/{part}": value for part, value in one.arrays().items()}
        return found

    def restore(self, arrays: Mapping[str, npt.NDArray[np.float64]]) -> None:
        """Continue from the sums of an interrupted pass.

        Raises:
            DamagedError: they are not of these layers.
        """
        try:
            self.clips = int(arrays[_DONE][0])
            self._sums = {
                name: Hsic.of({part: arrays[f"{name}/{part}"] for part in Hsic.PARTS})
                for name in self._names()
            }
        except (KeyError, IndexError, ValueError) as error:
            raise DamagedError(
                f"the sums of the interrupted analysis lack {error}; remove its folder and start "
                "again"
            ) from error

    def _names(self) -> Iterator[str]:
        first, second = self._layers
        for side, layers in enumerate(self._layers):
            yield from (f"{side}/{layer}" for layer in layers)
        yield from (f"{one}/{two}" for one in first for two in second)
