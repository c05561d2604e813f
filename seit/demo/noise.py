"""Fractal value noise on a periodic tile, the basis of every texture.

Legend: T tile side, N number of points.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

TILE_SIDE = 256
"""T: texels along each side of a tile; a power of two, so that wrapping is a bit mask."""

_OCTAVES = (4, 8, 16, 32, 64, 128)


class Tile(NamedTuple):
    """One periodic noise texture and its slopes.

    Attributes:
        height: ``(T * T,)`` float32, about -1 to 1, zero mean.
        slope_u: ``(T * T,)`` float32, difference between horizontal neighbors, times T / 16.
        slope_v: the same between vertical neighbors.
    """

    height: F32
    slope_u: F32
    slope_v: F32


@cache
def _lattice(num_cells: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], F32]:
    """Return left neighbor, right neighbor and eased weight, each ``(T,)``, for one octave."""
    position = np.arange(TILE_SIDE, dtype=np.float32) * (num_cells / TILE_SIDE)
    left = position.astype(np.intp)
    fraction = position - left.astype(np.float32)
    return left, (left + 1) % num_cells, fraction * fraction * (3.0 - 2.0 * fraction)


def _stretch(knots: F32) -> F32:
    """Interpolate ``(G, M)`` periodically along its first axis and transpose it to ``(M, T)``."""
    left, right, weight = _lattice(len(knots))
    start = knots[left]
    return np.ascontiguousarray((start + (knots[right] - start) * weight[:, None]).T)


def fractal_tile(rng: np.random.Generator, *, persistence: float = 0.6) -> Tile:
    """Draw a tile: six octaves of value noise, each ``persistence`` times fainter than the last."""
    height = np.zeros((TILE_SIDE, TILE_SIDE), np.float32)
    amplitude = 1.0
    for num_cells in _OCTAVES:
        knots = rng.random((num_cells, num_cells), dtype=np.float32) * 2.0 - 1.0
        height += amplitude * _stretch(_stretch(knots))
        amplitude *= persistence
    height -= height.mean(dtype=np.float32)
    gain = TILE_SIDE / 16
    return Tile(
        height=height.reshape(-1),
        slope_u=((np.roll(height, -1, 1) - height) * gain).reshape(-1),
        slope_v=((np.roll(height, -1, 0) - height) * gain).reshape(-1),
    )


def texel(u: F32, v: F32, *, texels_per_unit: float) -> npt.NDArray[np.intp]:
    """Return flat texel indices ``(N,)`` for surface coordinates ``u``, ``v`` ``(N,)`` in units."""
    mask = TILE_SIDE - 1
    # The added constant makes truncation a floor for every coordinate of a scene.
    column = (u * texels_per_unit + 16384.0).astype(np.int32) & mask
    row = (v * texels_per_unit + 16384.0).astype(np.int32) & mask
    return (row * TILE_SIDE + column).astype(np.intp)
