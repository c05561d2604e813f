"""Rendering of one picture from its scene, surfaces and camera."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from seit.demo.noise import fractal_tile
from seit.demo.photograph import expose, shade
from seit.demo.rays import trace
from seit.demo.scene import draw_scene
from seit.demo.shapes import CLASSES
from seit.errors import UsageError

_MIN_SIZE, _MAX_SIZE = 16, 1024


def check_picture(*, size: int, seed: int) -> None:
    """Raise ``UsageError`` unless pictures can be rendered at ``size`` from ``seed``."""
    if not _MIN_SIZE <= size <= _MAX_SIZE:
        raise UsageError(
            f"size is {size}, expected {_MIN_SIZE} to {_MAX_SIZE} pixels: choose another size"
        )
    if not 0 <= seed < 2**64:
        raise UsageError(f"seed is {seed}, expected 0 to 2**64 - 1: choose another seed")


def render(label: int, index: int, *, size: int = 256, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Render one picture; a pure function of its arguments.

    The scene does not depend on ``size``: a smaller picture shows the same scene with fewer pixels.
    Takes about 20 ms on one CPU core at the default size.

    Args:
        label: class of the main object, an index into ``CLASSES``.
        index: index of the picture within the class, 0 to 2**32 - 1.
        size: S, pixels along each side, 16 to 1,024.
        seed: seed of the corpus, 0 to 2**64 - 1.

    Returns:
        ``(S, S, 3)`` uint8, RGB, 0–255.

    Raises:
        UsageError: an argument is out of range.
    """
    check_picture(size=size, seed=seed)
    if not 0 <= label < len(CLASSES):
        raise UsageError(
            f"label is {label}, expected 0 to {len(CLASSES) - 1}: use an index into CLASSES"
        )
    if not 0 <= index < 2**32:
        raise UsageError(f"index is {index}, expected 0 to 2**32 - 1: choose another index")
    key = np.array([seed, label << 32 | index], np.uint64)
    rng = np.random.Generator(np.random.Philox(key=key))
    scene = draw_scene(CLASSES[label], rng)
    tile = fractal_tile(rng)
    return expose(shade(scene, trace(scene, size), tile), scene.camera, size, rng)
