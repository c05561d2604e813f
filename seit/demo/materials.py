"""Materials of surfaces: colors, patterns, relief and gloss, and each class's usual ones.

Legend: N number of surface points.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from seit.demo.noise import F32, Tile, texel

Color = tuple[float, float, float]

PATTERNS = ("plain", "mottled", "stripes", "wood", "marble", "checker", "speckle")


class Habit(NamedTuple):
    """Usual material of a class, e.g. gray for gears and orange for traffic cones.

    Attributes:
        hue: center of the main color's hue, 0 to 1 around the circle.
        saturation: of the main color, 0 to 1.
        value: brightness of the main color, 0 to 1.
        pattern: one of ``PATTERNS``.
    """

    hue: float
    saturation: float
    value: float
    pattern: str


HABIT_SHARE = 0.75
"""Share of main objects with their class's usual material; others get any material."""


class Surface(NamedTuple):
    """A material evaluated at N points.

    Attributes:
        albedo: ``(3, N)`` float32, linear light, 0 to 1.
        slope_u: ``(N,)`` float32, relief along the first texture axis.
        slope_v: the same along the second.
    """

    albedo: F32
    slope_u: F32
    slope_v: F32


@dataclass(frozen=True)
class Material:
    """Two colors, the pattern that mixes them, and the surface's response to light.

    Attributes:
        pattern: one of ``PATTERNS``.
        first: main color, sRGB, 0 to 1.
        second: pattern color, sRGB, 0 to 1.
        frequency: pattern repeats per unit of length (the frame is 2 units wide).
        angle: direction of the pattern, radians.
        texels_per_unit: scale of the noise.
        offset: start of the surface on the noise tile, units.
        relief: height of the bumps; 0 is smooth.
        gloss: strength of the highlight, 0 to 1.
        shininess: exponent of the highlight; large is small and sharp.
    """

    pattern: str
    first: Color
    second: Color
    frequency: float
    angle: float
    texels_per_unit: float
    offset: float
    relief: float
    gloss: float
    shininess: float

    def evaluate(self, u: F32, v: F32, tile: Tile) -> Surface:
        """Return albedo and relief at texture coordinates ``u``, ``v``, each ``(N,)``, in units."""
        where = texel(u + self.offset, v - self.offset, texels_per_unit=self.texels_per_unit)
        noise = tile.height[where]
        mix = self._mix(u, v, noise)
        # Uneven wear: even a plain surface varies.
        shade = 1.0 + 0.2 * noise
        first, second = _linear(self.first), _linear(self.second)
        albedo = np.empty((3, u.size), np.float32)
        for channel in range(3):
            albedo[channel] = (first[channel] + (second[channel] - first[channel]) * mix) * shade
        return Surface(albedo, self.relief * tile.slope_u[where], self.relief * tile.slope_v[where])

    def _mix(self, u: F32, v: F32, noise: F32) -> F32:
        """Return the share of the second color, ``(N,)``, 0 to 1."""
        tau_f = 2.0 * math.pi * self.frequency
        c, s = tau_f * math.cos(self.angle), tau_f * math.sin(self.angle)
        p: F32 = c * u + s * v
        q: F32 = c * v - s * u
        result: F32
        if self.pattern == "plain":
            result = 0.2 + 0.2 * noise
        elif self.pattern == "mottled":
            result = 0.5 + 0.9 * noise
        elif self.pattern == "speckle":
            grain: F32 = np.abs(noise)
            result = 5.0 * grain - 2.25
        elif self.pattern == "checker":
            result = 0.5 + 3.0 * np.sin(0.5 * p) * np.sin(0.5 * q)
        elif self.pattern == "stripes":
            wave: F32 = np.sin(p + 0.4 * noise)
            result = 0.5 + 1.5 * wave
        elif self.pattern == "wood":
            ring: F32 = np.sin(p + 2.5 * noise + np.sin(0.25 * q))
            result = 0.175 * (1.0 + ring) ** 2 + 0.25 * noise
        else:  # marble
            vein: F32 = np.abs(np.sin(0.5 * p + 5.0 * noise))
            result = (1.0 - vein) ** 2
        return np.clip(result, 0.0, 1.0, out=result)


def _linear(color: Color) -> Color:
    return (color[0] ** 2.2, color[1] ** 2.2, color[2] ** 2.2)


def _color(rng: np.random.Generator, saturation: float) -> Color:
    # Earth, wood and skin colors are more common in photographs than other hues.
    hue = rng.uniform(0.0, 0.16) if rng.random() < 0.45 else rng.random()
    return colorsys.hsv_to_rgb(hue, saturation * rng.uniform(0.1, 1.0), rng.uniform(0.3, 0.95))


def _usual_color(rng: np.random.Generator, habit: Habit) -> Color:
    return colorsys.hsv_to_rgb(
        (habit.hue + rng.uniform(-0.04, 0.04)) % 1.0,
        min(1.0, max(0.0, habit.saturation + rng.uniform(-0.15, 0.15))),
        min(1.0, max(0.2, habit.value + rng.uniform(-0.15, 0.15))),
    )


def _mean(material: Material) -> Color:
    a, b = material.first, material.second
    return (
        0.65 * a[0] + 0.35 * b[0],
        0.65 * a[1] + 0.35 * b[1],
        0.65 * a[2] + 0.35 * b[2],
    )


def draw_material(
    rng: np.random.Generator,
    *,
    saturation: float = 0.8,
    apart_from: tuple[Material, ...] = (),
    habit: Habit | None = None,
) -> Material:
    """Draw a material.

    Args:
        rng: random generator.
        saturation: maximum saturation of its colors, 0 to 1.
        apart_from: neighboring materials whose mean colors should differ from this main color.
        habit: usual material of the object's class, followed with probability ``HABIT_SHARE``.
    """
    follows = habit is not None and rng.random() < HABIT_SHARE
    first = _color(rng, saturation)
    for _ in range(8):
        if all(math.dist(first, _mean(other)) > 0.4 for other in apart_from):
            break
        first = _color(rng, saturation)
    pattern = PATTERNS[int(rng.integers(len(PATTERNS)))]
    if habit is not None and follows:
        first = _usual_color(rng, habit)
        pattern = habit.pattern
    strength = rng.uniform(0.15, 0.5)
    other = _color(rng, saturation)
    second = (
        first[0] + strength * (other[0] - first[0]),
        first[1] + strength * (other[1] - first[1]),
        first[2] + strength * (other[2] - first[2]),
    )
    return Material(
        pattern=pattern,
        first=first,
        second=second,
        frequency=rng.uniform(2.0, 5.0),
        angle=rng.uniform(0.0, math.pi),
        texels_per_unit=math.exp(rng.uniform(math.log(80.0), math.log(200.0))),
        offset=rng.uniform(0.0, 4.0),
        relief=rng.uniform(0.02, 0.16),
        gloss=rng.uniform(0.0, 1.0) ** 2,
        shininess=math.exp(rng.uniform(math.log(8.0), math.log(80.0))),
    )
