"""Solids as signed distance functions: the ten classes, and the clutter around them.

A solid has its own frame: its face is the xy plane and fits a circle of radius 1, z is its
thickness. A distance function takes x, y, z, each ``(N,)`` float32, and returns ``(N,)`` float32:
negative inside, and outside at most the true distance, so that a ray may step by it. Proportions
are drawn for each solid. The construction (folding, extrusion, revolution, smooth union) follows J.
C. Hart, "Sphere Tracing" (The Visual Computer 12, 1996).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from seit.demo.noise import F32

Distance = Callable[[F32, F32, F32], F32]
_Outline = Callable[[F32, F32], F32]


class Solid(NamedTuple):
    """A shape in its own frame.

    Attributes:
        distance: the signed distance function.
        bound: radius of a ball around the origin that contains the solid.
        half: half extents of a box around the origin that contains the solid.
    """

    distance: Distance
    bound: float
    half: tuple[float, float, float]

    @property
    def depth(self) -> float:
        """Half thickness along z."""
        return self.half[2]


def _norm(a: F32, b: F32) -> F32:
    """Return sqrt(a² + b²), six times as fast as ``np.hypot`` but without overflow protection."""
    result: F32 = np.sqrt(a * a + b * b)
    return result


def _box(x: F32, y: F32, half_x: float, half_y: float) -> F32:
    dx, dy = np.abs(x) - half_x, np.abs(y) - half_y
    result = _norm(np.maximum(dx, 0.0), np.maximum(dy, 0.0))
    result += np.minimum(np.maximum(dx, dy), 0.0)
    return result


def _extrude(outline: _Outline, depth: float, rounding: float, half_y: float = 1.0) -> Solid:
    """Thicken a flat outline to ±depth and round its edges."""

    def distance(x: F32, y: F32, z: F32) -> F32:
        side = outline(x, y) + rounding
        cap = np.abs(z) - (depth - rounding)
        result = _norm(np.maximum(side, 0.0), np.maximum(cap, 0.0))
        result += np.minimum(np.maximum(side, cap), 0.0)
        result -= rounding
        return result

    return Solid(distance, math.hypot(1.0, depth), (1.0, half_y, depth))


def _plate_like(rng: np.random.Generator, outline: _Outline) -> Solid:
    depth = rng.uniform(0.14, 0.32)
    return _extrude(outline, depth, rng.uniform(0.02, 0.07))


def _sphere(rng: np.random.Generator) -> Solid:
    radius = rng.uniform(0.82, 0.95)

    def distance(x: F32, y: F32, z: F32) -> F32:
        result: F32 = np.sqrt(x * x + y * y + z * z) - radius
        return result

    return Solid(distance, radius, (radius, radius, radius))


def _cube(rng: np.random.Generator) -> Solid:
    half_x, half_y, half_z = (rng.uniform(0.55, 0.68) for _ in range(3))
    return _extrude(lambda x, y: _box(x, y, half_x, half_y), half_z, rng.uniform(0.02, 0.1), half_y)


def _cone(rng: np.random.Generator) -> Solid:
    base, rounding = rng.uniform(0.55, 0.72), rng.uniform(0.02, 0.05)
    slant = math.hypot(1.75, base)
    normal_r, normal_y = 1.75 / slant, base / slant

    def distance(x: F32, y: F32, z: F32) -> F32:
        flank = normal_r * _norm(x, z) + normal_y * (y - 0.95) + rounding
        floor = -0.8 + rounding - y
        # The rim is sharper than a right angle, so the true distance is at least this.
        result = _norm(np.maximum(flank, 0.0), np.maximum(floor, 0.0))
        result += np.minimum(np.maximum(flank, floor), 0.0) - rounding
        return result

    return Solid(distance, 1.15, (base, 0.95, base))


def _torus(rng: np.random.Generator) -> Solid:
    minor = rng.uniform(0.16, 0.28)
    major = 0.95 - minor

    def distance(x: F32, y: F32, z: F32) -> F32:
        return _norm(_norm(x, y) - major, z) - minor

    return Solid(distance, 0.95, (0.95, 0.95, minor))


def _star(rng: np.random.Generator) -> Solid:
    num_points = int(rng.integers(5, 7))
    inner = rng.uniform(0.42, 0.54)
    half = math.pi / num_points
    # One edge of the star, from the tip (1, 0) to the notch, in the folded wedge.
    edge_x, edge_y = inner * math.cos(half) - 1.0, inner * math.sin(half)
    length_squared = edge_x * edge_x + edge_y * edge_y

    def outline(x: F32, y: F32) -> F32:
        radius, angle = _norm(x, y), np.arctan2(x, y)
        angle = np.abs(angle - 2.0 * half * np.rint(angle / (2.0 * half)))
        px: F32 = radius * np.cos(angle) - 1.0
        py: F32 = radius * np.sin(angle)
        along: F32 = np.clip((px * edge_x + py * edge_y) / length_squared, 0.0, 1.0)
        gap = _norm(px - along * edge_x, py - along * edge_y)
        result: F32 = np.copysign(gap, py * -edge_x + px * edge_y)
        return result

    return _plate_like(rng, outline)


def _cross(rng: np.random.Generator) -> Solid:
    arm_x, arm_y = rng.uniform(0.2, 0.32), rng.uniform(0.2, 0.32)
    wide = rng.uniform(0.82, 0.97)
    return _plate_like(
        rng, lambda x, y: np.minimum(_box(x, y, wide, arm_x), _box(x, y, arm_y, 0.97))
    )


def _crescent(rng: np.random.Generator) -> Solid:
    bite, shift = rng.uniform(0.64, 0.76), rng.uniform(0.38, 0.5)
    return _plate_like(
        rng,
        lambda x, y: np.maximum(_norm(x + 0.1, y) - 0.9, bite - _norm(x + 0.1 - shift, y)),
    )


def _gear(rng: np.random.Generator) -> Solid:
    wedge = 2.0 * math.pi / int(rng.integers(8, 13))
    root, hole = rng.uniform(0.68, 0.76), rng.uniform(0.18, 0.36)
    tooth = 0.25 * wedge * rng.uniform(0.8, 1.05)

    def outline(x: F32, y: F32) -> F32:
        radius, angle = _norm(x, y), np.arctan2(y, x)
        angle -= wedge * np.rint(angle / wedge)
        teeth = _box(radius * np.cos(angle) - 0.7, radius * np.sin(angle), 0.27, tooth)
        result: F32 = np.maximum(np.minimum(radius - root, teeth), hole - radius)
        return result

    return _plate_like(rng, outline)


def _heart(rng: np.random.Generator) -> Solid:
    side = rng.uniform(0.48, 0.53)
    diagonal = math.sqrt(0.5)

    def outline(x: F32, y: F32) -> F32:
        # A square on its corner, and a disc on each of its two upper sides.
        a, b = diagonal * (x + y + 0.1), diagonal * (y + 0.1 - x)
        square = _box(a, b, side, side)
        discs = np.minimum(_norm(a - side, b), _norm(a, b - side)) - side
        result: F32 = np.minimum(square, discs)
        return result

    return _plate_like(rng, outline)


def _bottle(rng: np.random.Generator) -> Solid:
    body, neck = rng.uniform(0.34, 0.46), rng.uniform(0.13, 0.19)
    shoulder, blend = rng.uniform(-0.05, 0.25), rng.uniform(0.12, 0.3)

    def distance(x: F32, y: F32, z: F32) -> F32:
        radius = _norm(x, z)
        middle, half = 0.5 * (shoulder - 0.95), 0.5 * (shoulder + 0.95)
        lower = _box(radius, y - middle, body - 0.06, half - 0.06) - 0.06
        upper = _box(radius, y - 0.48, neck - 0.03, 0.44) - 0.03
        overlap = np.maximum(blend - np.abs(lower - upper), 0.0)
        result: F32 = np.minimum(lower, upper) - overlap * overlap * (0.25 / blend)
        return result

    return Solid(distance, 1.08, (body, 0.95, body))


_MAKERS: dict[str, Callable[[np.random.Generator], Solid]] = {
    "sphere": _sphere,
    "cube": _cube,
    "cone": _cone,
    "torus": _torus,
    "star": _star,
    "cross": _cross,
    "crescent": _crescent,
    "gear": _gear,
    "heart": _heart,
    "bottle": _bottle,
}

CLASSES: tuple[str, ...] = tuple(_MAKERS)
"""Class names; a label is an index into this tuple."""


def make_solid(name: str, rng: np.random.Generator) -> Solid:
    """Draw one solid of the class ``name``."""
    return _MAKERS[name](rng)


def make_pebble(rng: np.random.Generator) -> Solid:
    """Draw a flattened ellipsoid."""
    a, b, c = 1.0, rng.uniform(0.55, 0.8), rng.uniform(0.35, 0.55)

    def distance(x: F32, y: F32, z: F32) -> F32:
        # The scaled ball's distance, shrunk by the smallest axis, cannot overshoot.
        result: F32 = (np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2) - 1.0) * c
        return result

    return Solid(distance, 1.0, (1.0, b, c))


def make_stick(rng: np.random.Generator) -> Solid:
    """Draw a thin rod with round ends along x."""
    radius = rng.uniform(0.05, 0.09)

    def distance(x: F32, y: F32, z: F32) -> F32:
        beyond = np.maximum(np.abs(x) - (1.0 - radius), 0.0)
        result: F32 = np.sqrt(beyond * beyond + y * y + z * z) - radius
        return result

    return Solid(distance, 1.0, (1.0, radius, radius))


def make_plate(rng: np.random.Generator) -> Solid:
    """Draw a thin card or a thin round coaster."""
    depth = rng.uniform(0.03, 0.06)
    if rng.random() < 0.5:
        return _extrude(lambda x, y: _norm(x, y) - 0.95, depth, 0.02)
    half_y = rng.uniform(0.4, 0.66)
    return _extrude(lambda x, y: _box(x, y, 0.7, half_y), depth, 0.02, half_y)
