"""Layout of a scene: a main object, clutter, a floor, often a wall, a light and a camera.

World axes: x to the right, y away from the camera, z up; the floor is z = 0. The camera is
orthographic and looks at the origin from in front and above; the frame is 2 units wide and high.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from seit.demo import shapes
from seit.demo.materials import Color, Habit, Material, draw_material
from seit.demo.shapes import Solid

Vector = tuple[float, float, float]
Rotation = tuple[Vector, Vector, Vector]
"""Rows: the solid's own axes in world coordinates, so that rows · point maps to its frame."""


class Body(NamedTuple):
    """A solid placed in the world: ``scale`` units per unit of its own frame."""

    solid: Solid
    center: Vector
    rotation: Rotation
    scale: float
    material: Material

    @property
    def radius(self) -> float:
        """Radius of the ball around ``center`` that holds the body, units."""
        return self.scale * self.solid.bound


class Camera(NamedTuple):
    """View directions, and the effects of lens and sensor.

    Attributes:
        right: unit vector along image rows.
        up: unit vector up the image.
        forward: unit vector into the picture.
        blur: standard deviation of the lens blur, units.
        vignette: loss of light in the corners, 0 to 1.
        balance: gain per channel (white balance).
        exposure: target mean level, linear light.
        sensor_noise: standard deviation per pixel, 0 to 255.
    """

    right: Vector
    up: Vector
    forward: Vector
    blur: float
    vignette: float
    balance: Color
    exposure: float
    sensor_noise: float


class Light(NamedTuple):
    """One distant lamp plus ambient light.

    Attributes:
        towards: unit vector towards the lamp.
        color: linear light.
        ambient: linear ambient light.
        sharpness: hardness of shadows' edges; large is hard.
        falloff: horizontal direction in which the light fades, per unit.
    """

    towards: Vector
    color: Color
    ambient: Color
    sharpness: float
    falloff: tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """Contents of one picture. ``bodies[0]`` is the main object; ``wall`` is a y, or None."""

    bodies: tuple[Body, ...]
    floor: Material
    backdrop: Material
    wall: float | None
    camera: Camera
    light: Light


def _times(a: Rotation, b: Rotation) -> Rotation:
    def row(r: Vector) -> Vector:
        return (
            r[0] * b[0][0] + r[1] * b[1][0] + r[2] * b[2][0],
            r[0] * b[0][1] + r[1] * b[1][1] + r[2] * b[2][1],
            r[0] * b[0][2] + r[1] * b[1][2] + r[2] * b[2][2],
        )

    return (row(a[0]), row(a[1]), row(a[2]))


def _about_z(angle: float) -> Rotation:
    c, s = math.cos(angle), math.sin(angle)
    return ((c, s, 0.0), (-s, c, 0.0), (0.0, 0.0, 1.0))


def _risen(angle: float) -> Rotation:
    c, s = math.cos(angle), math.sin(angle)
    return ((c, 0.0, s), (0.0, 1.0, 0.0), (-s, 0.0, c))


_UPRIGHT: Rotation = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0))
"""The face (xy) turned to the camera: own y is up, own z is towards the viewer."""

_FLAT_FOOTED = ("cube", "cone", "bottle")


def _depth_below(solid: Solid, rotation: Rotation) -> float:
    """Return how far the solid extends below its center, in its own units, by a coarse scan."""
    side = np.linspace(-1.1, 1.1, 23, dtype=np.float32)
    layers = np.linspace(-solid.depth, solid.depth, 11, dtype=np.float32)
    x, y, z = (axis.reshape(-1) for axis in np.meshgrid(side, side, layers, indexing="ij"))
    height = rotation[0][2] * x + rotation[1][2] * y + rotation[2][2] * z
    inside = solid.distance(x, y, z) < 0.03
    return float(-height[inside].min())


HABITS = {
    "sphere": Habit(hue=0.07, saturation=0.85, value=0.8, pattern="speckle"),
    "cube": Habit(hue=0.09, saturation=0.6, value=0.5, pattern="wood"),
    "cone": Habit(hue=0.03, saturation=0.9, value=0.9, pattern="stripes"),
    "torus": Habit(hue=0.6, saturation=0.8, value=0.7, pattern="stripes"),
    "star": Habit(hue=0.14, saturation=0.85, value=0.9, pattern="plain"),
    "cross": Habit(hue=0.5, saturation=0.2, value=0.9, pattern="plain"),
    "crescent": Habit(hue=0.7, saturation=0.5, value=0.75, pattern="mottled"),
    "gear": Habit(hue=0.6, saturation=0.25, value=0.45, pattern="speckle"),
    "heart": Habit(hue=0.95, saturation=0.8, value=0.75, pattern="marble"),
    "bottle": Habit(hue=0.36, saturation=0.75, value=0.45, pattern="plain"),
}
"""Usual material of each class."""


def _camera(elevation: float, rng: np.random.Generator) -> Camera:
    roll = rng.uniform(-0.14, 0.14)
    s, c = math.sin(elevation), math.cos(elevation)
    cr, sr = math.cos(roll), math.sin(roll)
    return Camera(
        right=(cr, sr * s, sr * c),
        up=(-sr, cr * s, cr * c),
        forward=(0.0, c, -s),
        blur=rng.uniform(0.004, 0.006),
        vignette=rng.uniform(0.0, 0.45),
        balance=(rng.uniform(0.92, 1.08), 1.0, rng.uniform(0.92, 1.08)),
        exposure=rng.uniform(0.2, 0.34),
        sensor_noise=rng.uniform(1.0, 4.0),
    )


def _light(rng: np.random.Generator) -> Light:
    # From the camera's side, so that the visible face is lit.
    azimuth, height = rng.uniform(-1.9, 1.9), rng.uniform(0.5, 1.15)
    warmth = rng.uniform(-1.0, 1.0)
    ambient = rng.uniform(0.2, 0.45)
    fade, heading = rng.uniform(0.0, 0.3), rng.uniform(0.0, 2.0 * math.pi)
    return Light(
        towards=(
            math.sin(azimuth) * math.cos(height),
            -math.cos(azimuth) * math.cos(height),
            math.sin(height),
        ),
        color=(1.0 + 0.18 * warmth, 1.0, 1.0 - 0.22 * warmth),
        ambient=(ambient * (1.0 - 0.1 * warmth), ambient, ambient * (1.0 + 0.12 * warmth)),
        sharpness=math.exp(rng.uniform(math.log(4.0), math.log(24.0))),
        falloff=(fade * math.cos(heading), fade * math.sin(heading)),
    )


def _main_body(
    name: str, upright: bool, camera: Camera, material: Material, rng: np.random.Generator
) -> Body:
    solid = shapes.make_solid(name, rng)
    lean = rng.uniform(-0.4, 0.4)
    if upright:
        turn = _about_z(rng.uniform(-0.6, 0.6))
        tilt = _about_z(0.0 if name in _FLAT_FOOTED else 0.75 * lean)
        rotation = _times(_times(tilt, _UPRIGHT), turn)
    else:
        rotation = _about_z(lean)
    scale = rng.uniform(0.42, 0.78)
    room = max(0.0, 0.95 - scale)
    across, along = rng.uniform(-room, room), rng.uniform(-room, room)
    height = scale * _depth_below(solid, rotation)
    # The point on the floor where the camera sees the center at (across, along).
    x = camera.right[0] * across + camera.up[0] * along
    seen = camera.right[1] * across + camera.up[1] * along
    sine, cosine = -camera.forward[2], camera.forward[1]
    y = (seen / sine - cosine * height) / sine
    return Body(solid, (x, y, height), rotation, scale, material)


def _clutter(
    main: Body, far: float, camera: Camera, floor: Material, rng: np.random.Generator
) -> Body:
    kind = int(rng.integers(3))
    material = draw_material(rng, apart_from=(floor,))
    turn = _about_z(rng.uniform(0.0, 2.0 * math.pi))
    height = 0.0
    if kind == 0:
        solid, scale = shapes.make_pebble(rng), main.scale * rng.uniform(0.18, 0.42)
    elif kind == 1:
        solid, scale = shapes.make_stick(rng), rng.uniform(0.3, 0.9)
        if rng.random() < 0.5:
            rise = rng.uniform(0.2, 1.1)
            turn = _times(_risen(rise), turn)
            height = scale * math.sin(rise)
    else:
        solid, scale = shapes.make_plate(rng), main.scale * rng.uniform(0.6, 1.3)
    height = max(height, scale * solid.depth)
    # Flat things and sticks may reach under the main object; pebbles stay next to it.
    gap = 0.95 if kind == 0 else 0.45
    near = -1.0 / camera.up[1]
    x = y = 0.0
    for _ in range(6):
        x = rng.uniform(-1.0, 1.0)
        y = rng.uniform(near, max(near, far - scale))
        if math.hypot(x - main.center[0], y - main.center[1]) > gap * main.scale + 0.8 * scale:
            break
    return Body(solid, (x, y, height), turn, scale, material)


def draw_scene(name: str, rng: np.random.Generator) -> Scene:
    """Draw a scene around one object of class ``name``."""
    upright = bool(rng.random() < 0.55)
    camera = _camera(rng.uniform(0.25, 0.75) if upright else rng.uniform(0.85, 1.4), rng)
    light = _light(rng)
    floor = draw_material(rng, saturation=0.5)
    backdrop = draw_material(rng, saturation=0.4)
    material = draw_material(rng, apart_from=(floor, backdrop), habit=HABITS[name])
    num_clutter = int(rng.integers(1, 5))
    has_wall = bool(rng.random() < 0.75)
    main = _main_body(name, upright, camera, material, rng)
    wall = main.center[1] + main.radius * rng.uniform(1.1, 2.5) if has_wall else None
    far = 1.0 / camera.up[1]
    far = max(main.center[1], far if wall is None else min(wall, far))
    clutter = [_clutter(main, far, camera, floor, rng) for _ in range(num_clutter)]
    return Scene((main, *clutter), floor, backdrop, wall, camera, light)
