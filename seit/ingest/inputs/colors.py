"""Conversion of loaded images to RGB, for every pixel format.

Transparency is composited over white. Sixteen-bit gray is scaled (÷ 257, never clipped); float
images must lie in 0–1. CMYK uses the plain formula; embedded ICC profiles are not applied, as in
common training pipelines. Missing or contradicted declarations cause a remark.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from seit.errors import UnreadableError
from seit.ingest.inputs.remarks import Remark

HIDDEN = "alpha is 0 everywhere although the colors differ; alpha was ignored"
DARK = "16-bit values stay below 4,096, as 12-bit ones do; they were scaled as 16-bit: nearly black"
UNDECLARED_ALPHA = "four channels of which none is declared as alpha; the last was taken for it"
UNMARKED_CMYK = "CMYK without Adobe's marker; taken for inverted, as Adobe writes it"

_BITS_PER_SAMPLE, _PHOTOMETRIC, _COLOR_MAP = 258, 262, 320
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _SIGNED = 338, 339, 2
_TWELVE_BITS, _SIXTEEN_BITS = 4095, 65535
_BITS = "seit bits per sample"

Resize = Callable[[Image.Image], Image.Image]


def settle_png(image: ImageFile.ImageFile, data: bytes) -> None:
    """Convert the transparent color of a PNG from its own bit depth to that of the pixels."""
    if not isinstance(image, PngImagePlugin.PngImageFile) or len(data) < 26:
        return
    bits, color = data[24], data[25]
    image.info[_BITS] = bits
    key = image.info.get("transparency")
    if color == 0 and bits in (2, 4) and isinstance(key, int):
        image.info["transparency"] = key * (255 // ((1 << bits) - 1)) & 255
    if color == 2 and bits == 16 and isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in key)


def to_rgb(image: ImageFile.ImageFile, resized: Resize, remark: Remark) -> NDArray[np.uint8]:
    """Return the colors of a loaded image after ``resized``: uint8 (H, W, 3), 0–255.

    Raises:
        UnreadableError: a value is outside the range of its type.
    """
    _check_tags(image, remark)
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(resized(_gray_255(image, remark))).clip(0, 255)
        rounded: NDArray[np.uint8] = np.rint(values).astype(np.uint8)
        return np.repeat(rounded[..., None], 3, axis=2)
    if image.has_transparency_data:
        return _over_white(_as_rgba(image), resized, remark)
    if image.mode in ("1", "L"):
        gray = np.asarray(resized(_as_mode(image, "L")))
        return np.repeat(gray[..., None], 3, axis=2)
    rgb = _as_mode(image, "RGB")
    if _num_bits(image) == 16 and 0 < int(np.max(rgb.getextrema())) < 16:
        remark(DARK)
    return np.array(resized(rgb))


def _check_tags(image: ImageFile.ImageFile, remark: Remark) -> None:
    """Check the declared pixel format of a TIFF or a CMYK JPEG."""
    is_jpeg = isinstance(image, JpegImagePlugin.JpegImageFile)
    if is_jpeg and image.mode == "CMYK" and "adobe" not in image.info:
        remark(UNMARKED_CMYK)
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    tags = image.tag_v2
    if tags.get(_SAMPLE_FORMAT) == (_SIGNED,) and tags.get(_BITS_PER_SAMPLE) == (8,):
        raise UnreadableError("signed 8-bit values; expected unsigned ones, 0 … 255")
    if image.mode == "RGBA" and _EXTRA_SAMPLES not in tags:
        remark(UNDECLARED_ALPHA)
    if image.mode == "P" and 0 < max(colors := tags.get(_COLOR_MAP, (0,))) < 256:
        # Entries have 16 bits; some writers store 8-bit ones, which would all be black.
        image.putpalette(bytes(np.reshape(colors, (3, -1)).T.astype(np.uint8).ravel()))


def _num_bits(image: ImageFile.ImageFile) -> int:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return int(max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))))
    return int(image.info.get(_BITS, 8))


def _over_white(rgba: Image.Image, resized: Resize, remark: Remark) -> NDArray[np.uint8]:
    extrema = np.asarray(rgba.getextrema())
    if extrema[3, 1] == 0 and (extrema[:3, 0] != extrema[:3, 1]).any():
        remark(HIDDEN)
        return np.array(resized(rgba.convert("RGB")))
    premultiplied = np.array(resized(rgba.convert("RGBa")), dtype=np.uint16)
    white = 255 - premultiplied[..., 3:]
    composed: NDArray[np.uint8] = np.minimum(premultiplied[..., :3] + white, 255).astype(np.uint8)
    return composed


def _as_rgba(image: Image.Image) -> Image.Image:
    return _as_mode(image.convert("LA") if image.mode == "La" else image, "RGBA")


def _as_mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # convert always copies


def _gray_255(image: ImageFile.ImageFile, remark: Remark) -> Image.Image:
    """Convert a one-channel image of more than 8 bits to mode F, 0–255."""
    values = np.array(image, np.float32)
    low, high = float(values.min()), float(values.max())
    if image.mode == "F":
        if not (low >= 0 and high <= 1):
            raise UnreadableError(
                f"float values reach {low:g} … {high:g}; expected 0 … 1; scale them first"
            )
        values *= 255
        return Image.fromarray(values)
    tags = getattr(image, "tag_v2", {})
    full = _TWELVE_BITS if tags.get(_BITS_PER_SAMPLE) == (12,) else _SIXTEEN_BITS
    if low < 0 or high > full:
        raise UnreadableError(
            f"integer values reach {low:g} … {high:g}; expected 0 … {full}; scale them first"
        )
    if full == _SIXTEEN_BITS and 0 < high <= _TWELVE_BITS:
        remark(DARK)
    key = image.info.get("transparency")
    if isinstance(key, int):
        values[values == key] = full
    if tags.get(_PHOTOMETRIC) == 0:  # zero is white; Pillow inverts only 8-bit images
        np.subtract(full, values, out=values)
    values *= 255 / full
    return Image.fromarray(values)
