"""Rendering of surfaces as a photograph: textures, light, lens and sensor.

Legend: S image side, N number of pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from seit.demo.materials import Material
from seit.demo.noise import F32, Tile
from seit.demo.rays import (
    FIRST_BODY,
    FLOOR,
    WALL,
    Visible,
    dot,
    light_reaching,
    pick,
    to_own_frame,
)
from seit.demo.scene import Camera, Scene


def _paint(
    material: Material, u: F32, v: F32, tile: Tile, normal: F32, scene: Scene, lamp: F32,
    around: F32,
) -> F32:  # fmt: skip
    """Return linear light ``(3, N)`` leaving N points of one material towards the camera."""
    light, camera = scene.light, scene.camera
    surface = material.evaluate(u, v, tile)
    # Tilting along fixed axes is wrong only on faces seen edge-on, where relief hardly shows.
    bumped = np.stack([normal[0] - surface.slope_u, normal[1] - surface.slope_v, normal[2]])
    bumped /= np.sqrt(np.einsum("cn,cn->n", bumped, bumped))
    direct = np.maximum(dot(light.towards, bumped), 0.0) * lamp
    sky = (0.65 + 0.35 * bumped[2]) * around
    x, y, z = (a - b for a, b in zip(light.towards, camera.forward, strict=True))
    length = float(np.sqrt(x * x + y * y + z * z))
    half = (x / length, y / length, z / length)
    highlight = np.maximum(dot(half, bumped), 0.0) ** material.shininess
    highlight *= lamp * (0.5 * material.gloss)
    result = np.empty_like(surface.albedo)
    for channel in range(3):
        result[channel] = surface.albedo[channel] * (
            light.color[channel] * direct + light.ambient[channel] * sky
        )
        result[channel] += light.color[channel] * highlight
    return result


def shade(scene: Scene, visible: Visible, tile: Tile) -> F32:
    """Return the linear light ``(3, S * S)`` float32 that reaches the camera."""
    light = scene.light
    lamp, around = light_reaching(visible, light.towards, light.sharpness)
    radiance = np.empty_like(visible.point)
    for owner in range(FIRST_BODY + len(visible.bodies)):
        pixels = np.flatnonzero(visible.owner == owner)
        if pixels.size == 0:
            continue
        point = pick(visible.point, pixels)
        if owner == FLOOR:
            material, u, v = scene.floor, point[0], point[1]
        elif owner == WALL:
            material, u, v = scene.backdrop, point[0], point[2]
        else:
            body = visible.bodies[owner - FIRST_BODY]
            x, y, z = to_own_frame(body, point) * body.scale
            # A slanted projection: no face is parallel to it, so texels do not smear.
            material, u, v = body.material, x + 0.6 * z, y - 0.7 * z
        painted = _paint(
            material, u, v, tile, pick(visible.normal, pixels), scene, lamp[pixels], around[pixels]
        )
        for channel in range(3):
            radiance[channel, pixels] = painted[channel]
    fade = 1.0 + light.falloff[0] * visible.point[0] + light.falloff[1] * visible.point[1]
    radiance *= np.clip(fade, 0.35, 1.6)
    return radiance


def _blur(image: F32, sigma: float) -> F32:
    """Blur ``(3, S, S)`` by three taps each way; ``sigma`` in pixels, at most about 0.8."""
    side = min(0.5 * sigma * sigma, 0.3)
    result = (1.0 - 2.0 * side) * image
    result[:, 1:-1] += side * (image[:, :-2] + image[:, 2:])
    result[:, 0] += side * (image[:, 0] + image[:, 1])
    result[:, -1] += side * (image[:, -1] + image[:, -2])
    across = (1.0 - 2.0 * side) * result
    across[:, :, 1:-1] += side * (result[:, :, :-2] + result[:, :, 2:])
    across[:, :, 0] += side * (result[:, :, 0] + result[:, :, 1])
    across[:, :, -1] += side * (result[:, :, -1] + result[:, :, -2])
    return across


def _grain(size: int, rng: np.random.Generator) -> F32:
    """Draw sensor noise ``(3, S, S)``: fine in brightness, coarser and fainter in color."""
    grain = rng.standard_normal((size, size), dtype=np.float32)
    half = (size + 1) // 2
    blotches = 0.6 * rng.standard_normal((2, half, half), dtype=np.float32)
    red, blue = blotches.repeat(2, 1).repeat(2, 2)[:, :size, :size]
    return np.stack([grain + red, grain, grain + blue])


def expose(
    radiance: F32, camera: Camera, size: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Turn linear light ``(3, S * S)`` into an sRGB picture ``(S, S, 3)`` uint8, 0–255."""
    image = radiance.reshape(3, size, size)
    image *= camera.exposure / max(float(image.mean(dtype=np.float64)), 1e-3)
    axis = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    corner = 1.0 - camera.vignette * 0.5 * (axis**2 + axis[:, None] ** 2)
    for channel in range(3):
        image[channel] *= corner * camera.balance[channel]
    # A soft shoulder keeps highlights from clipping hard.
    image = _blur(1.0 - np.exp(-1.25 * image), max(camera.blur * size / 2.0, 0.6))
    np.power(image, 1.0 / 2.2, out=image)
    image *= 255.0
    image += camera.sensor_noise * _grain(size, rng)
    np.clip(image + 0.5, 0.0, 255.0, out=image)
    picture = np.empty((size, size, 3), np.uint8)
    for channel in range(3):
        picture[:, :, channel] = image[channel]
    return picture
