"""Visible surface of each pixel, by sphere tracing of every body, and the bodies' shadows.

The method is J. C. Hart's "Sphere Tracing" (The Visual Computer 12, 1996). Rays are parallel, each
body is traced only inside its own outline, and finished rays leave the batch.

Legend: S image side, N number of points or rays.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from seit.demo.noise import F32
from seit.demo.scene import Body, Camera, Rotation, Scene, Vector
from seit.demo.shapes import Distance, Solid

Index = npt.NDArray[np.intp]

FLOOR, WALL, FIRST_BODY = 0, 1, 2
"""Values of ``Visible.owner``; body b of a scene is ``FIRST_BODY + b``."""

_NUM_STEPS, _NUM_SHADOW_STEPS = 28, 10
_PENUMBRA = 0.2
"""Maximum reach of a shadow outside its body's outline, in the body's own units."""
_HIDDEN_AT_MOST = 0.2
"""Maximum share of the main object that clutter may cover; larger clutter is left out."""


class Visible(NamedTuple):
    """The nearest surface at every pixel, rows first.

    Attributes:
        owner: ``(S * S,)`` uint8, floor, wall or body.
        point: ``(3, S * S)`` float32, world coordinates, units.
        normal: ``(3, S * S)`` float32, unit vectors.
        bodies: the remaining bodies, in the order of ``owner``.
    """

    owner: npt.NDArray[np.uint8]
    point: F32
    normal: F32
    bodies: tuple[Body, ...]


def dot(a: Vector, b: F32) -> F32:
    """Return the dot products of one vector with ``b`` ``(3, N)`` as ``(N,)`` float32."""
    result: F32 = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return result


def pick(values: F32, index: Index) -> F32:
    """Return ``values[:, index]``, several times faster than numpy's indexing."""
    return np.stack([row.take(index) for row in values])


def to_own_frame(body: Body, point: F32) -> F32:
    """Return world points ``(3, N)`` in the body's own frame."""
    relative = np.stack([point[axis] - body.center[axis] for axis in range(3)])
    return np.stack([dot(row, relative) for row in body.rotation]) * (1.0 / body.scale)


def _turn(rotation: Rotation, vector: Vector) -> Vector:
    a, b, c = (sum(p * q for p, q in zip(row, vector, strict=True)) for row in rotation)
    return (a, b, c)


def _span(solid: Solid, origin: F32, direction: Vector, margin: float) -> tuple[F32, F32]:
    """Return the points where rays ``(N,)`` enter and leave the solid's box, plus ``margin``.

    A ray that misses the box leaves before it enters.
    """
    enter = np.full(origin.shape[1], -np.inf, np.float32)
    leave = np.full(origin.shape[1], np.inf, np.float32)
    for axis in range(3):
        slope = direction[axis] if abs(direction[axis]) > 1e-3 else 1e-3
        middle, half = origin[axis] * (-1.0 / slope), (solid.half[axis] + margin) / abs(slope)
        np.maximum(enter, middle - half, out=enter)
        np.minimum(leave, middle + half, out=leave)
    return enter, leave


def _march(solid: Solid, origin: F32, direction: Vector, tolerance: float) -> F32:
    """Return the distance of each ray to the solid, ``(N,)``; infinity if it misses."""
    start, end = _span(solid, origin, direction, 0.0)
    travelled = np.full(start.shape, np.inf, np.float32)
    active: Index = np.flatnonzero(start < end)
    x, y, z = pick(origin, active)
    t, end = start[active], end[active]
    for step in range(1, _NUM_STEPS + 1):
        gap = solid.distance(x + t * direction[0], y + t * direction[1], z + t * direction[2])
        if step % 4 == 2 or step == _NUM_STEPS:
            met = gap < (tolerance if step < _NUM_STEPS else 4.0 * tolerance)
            travelled[active[met]] = t[met]
            going = np.flatnonzero(~met & (t < end))
            if going.size == 0:
                break
            active, x, y, z = active[going], x[going], y[going], z[going]
            t, end, gap = t[going], end[going], gap[going]
        t = t + gap
    return travelled


def _gradient(distance: Distance, x: F32, y: F32, z: F32) -> F32:
    """Return unit normals ``(3, N)`` from four samples at the corners of a tetrahedron."""
    e = 0.004
    a = distance(x + e, y - e, z - e)
    b = distance(x - e, y - e, z + e)
    c = distance(x - e, y + e, z - e)
    d = distance(x + e, y + e, z + e)
    normal = np.stack([a - b - c + d, c - a - b + d, b - a - c + d])
    normal /= np.sqrt(np.einsum("cn,cn->n", normal, normal)) + 1e-9
    return normal


def _background(scene: Scene, point: F32) -> tuple[npt.NDArray[np.uint8], F32]:
    """Return owner ``(N,)`` and depth ``(N,)`` of floor and wall behind image-plane points."""
    _, cosine, minus_sine = scene.camera.forward
    depth = point[2] * (-1.0 / minus_sine)
    owner = np.zeros(depth.shape, np.uint8)
    if scene.wall is not None:
        behind = (scene.wall - point[1]) * (1.0 / cosine)
        owner[behind < depth] = WALL
        depth = np.minimum(depth, behind)
    return owner, depth


def _outline(body: Body, camera: Camera, u: F32, v: F32) -> Index:
    """Return the pixels inside the body's bounding disc.

    ``u`` and ``v`` ``(S,)`` are the pixel centers' image-plane coordinates.
    """
    center = np.array(body.center, np.float32)[:, None]
    du, dv = u - dot(camera.right, center), v - dot(camera.up, center)
    columns = np.flatnonzero(np.abs(du) < body.radius)
    rows = np.flatnonzero(np.abs(dv) < body.radius)
    inside = du[columns] ** 2 + dv[rows, None] ** 2 < body.radius**2
    return (rows[:, None] * u.size + columns)[inside]


def trace(scene: Scene, size: int) -> Visible:
    """Find the nearest surface at each of ``size`` × ``size`` pixels."""
    camera = scene.camera
    u = (np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0
    v = -u
    plane = np.empty((3, size * size), np.float32)
    for axis in range(3):
        plane[axis] = (u * camera.right[axis] + (v * camera.up[axis])[:, None]).reshape(-1)
    owner, depth = _background(scene, plane)
    normal = np.zeros((3, size * size), np.float32)
    normal[2] = owner == FLOOR
    normal[1] = -1.0 * (owner == WALL)
    main_pixels = 0
    kept: list[Body] = []
    for body in scene.bodies:
        pixels = _outline(body, camera, u, v)
        if pixels.size == 0:
            continue
        origin = to_own_frame(body, pick(plane, pixels))
        direction = _turn(body.rotation, camera.forward)
        tolerance = 0.5 / (size * body.scale)
        travelled = _march(body.solid, origin, direction, tolerance)
        nearer = np.flatnonzero(travelled * body.scale < depth[pixels])
        pixels, t = pixels[nearer], travelled[nearer]
        if not kept:
            main_pixels = pixels.size
        elif np.count_nonzero(owner[pixels] == FIRST_BODY) > _HIDDEN_AT_MOST * main_pixels:
            continue
        own = [origin[axis, nearer] + t * direction[axis] for axis in range(3)]
        slope = _gradient(body.solid.distance, own[0], own[1], own[2])
        a, b, c = body.rotation
        for axis in range(3):
            normal[axis, pixels] = dot((a[axis], b[axis], c[axis]), slope)
        owner[pixels] = FIRST_BODY + len(kept)
        depth[pixels] = t * body.scale
        kept.append(body)
    for axis in range(3):
        plane[axis] += depth * camera.forward[axis]
    return Visible(owner, plane, normal, tuple(kept))


def light_reaching(visible: Visible, towards: Vector, sharpness: float) -> tuple[F32, F32]:
    """Return the share of lamp light and of ambient light that reaches each pixel's surface.

    Args:
        visible: visible surfaces.
        towards: unit vector towards the lamp.
        sharpness: hardness of the shadows' edges.

    Returns:
        ``(S * S,)`` float32 each, 0 (none) to 1 (all).
    """
    lamp = np.ones(visible.owner.shape, np.float32)
    around = np.ones(visible.owner.shape, np.float32)
    facing = dot(towards, visible.normal) > 0.0
    norm = np.einsum("cn,cn->n", visible.point, visible.point)
    height = dot(towards, visible.point)
    for number, body in enumerate(visible.bodies):
        x, y, z = body.center
        squared = norm - dot((2.0 * x, 2.0 * y, 2.0 * z), visible.point)
        squared += x * x + y * y + z * z
        along = height - (x * towards[0] + y * towards[1] + z * towards[2])
        beam = squared - along * along < (1.15 * body.radius) ** 2
        beam &= facing
        beam &= along < 0.5 * body.radius
        beam &= visible.owner != FIRST_BODY + number
        _darken(lamp, visible, body, towards, sharpness, np.flatnonzero(beam))
        _crowd(around, visible, body, np.flatnonzero(squared < (1.3 * body.radius) ** 2))
    return lamp, around


def _darken(
    lamp: F32, visible: Visible, body: Body, towards: Vector, sharpness: float, pixels: Index
) -> None:
    """Multiply ``lamp`` at ``pixels`` by the body's soft shadow."""
    if pixels.size == 0:
        return
    origin = to_own_frame(body, pick(visible.point, pixels) + 0.01 * pick(visible.normal, pixels))
    direction = _turn(body.rotation, towards)
    enter, end = _span(body.solid, origin, direction, _PENUMBRA)
    active: Index = np.flatnonzero(np.maximum(enter, 0.02) < end)
    x, y, z = pick(origin, active)
    t, end = np.maximum(enter[active], 0.02), end[active]
    darkest = np.full(pixels.shape, np.inf, np.float32)
    for step in range(1, _NUM_SHADOW_STEPS + 1):
        gap = body.solid.distance(x + t * direction[0], y + t * direction[1], z + t * direction[2])
        darkest[active] = np.minimum(darkest[active], gap / (t + 0.1))
        t = t + np.maximum(gap, 0.04)
        if step % 3 == 0:
            # A ray that just touches gets half the light, so one well inside is done too.
            going = np.flatnonzero((t < end) & (darkest[active] * sharpness > -0.5))
            active, x, y, z = active[going], x[going], y[going], z[going]
            t, end = t[going], end[going]
    light = np.clip(0.5 + sharpness * darkest, 0.0, 1.0)
    lamp[pixels] *= light * light * (3.0 - 2.0 * light)


def _crowd(around: F32, visible: Visible, body: Body, pixels: Index) -> None:
    """Multiply ``around`` at ``pixels`` by the share of surroundings the body leaves visible."""
    if pixels.size == 0:
        return
    step = 0.22
    x, y, z = to_own_frame(
        body, pick(visible.point, pixels) + (step * body.scale) * pick(visible.normal, pixels)
    )
    gap = body.solid.distance(x, y, z) * (1.0 / step)
    around[pixels] *= 0.35 + 0.65 * np.clip(gap, 0.0, 1.0)
