"""Image bytes → the uint8 square that a tokenizer or a pixel baseline sees.

Every file goes the same way: recognise it by its first bytes, check its size before decoding,
decode (JPEG: at the smallest DCT scale that still covers the result), make it RGB, resize and
centre-crop in one resampling, turn it upright.

Colours. Transparency is composited over white. Sixteen-bit grey is scaled (÷ 257, never clipped);
float images must lie in 0–1. CMYK goes through the plain formula; embedded ICC profiles are not
applied, as in every common training pipeline. Of an animation the first frame is used.

Safety. Only raster formats that Pillow decodes in process are tried: nothing here starts another
program. Whatever the bytes, the only error is ``UnreadableError``.

Warnings. Pillow warns about odd metadata (broken EXIF, unknown TIFF tags) that does not matter
here. ``warnings.catch_warnings`` is not thread-safe, so one filter entry, which matches only in
threads that are inside ``decode_image``, stays at the head of ``warnings.filters``. (The TIFF
library's own remarks on damaged files go straight to stderr and cannot be held back from here.)
"""

import io
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from seit.errors import UnreadableError, UsageError
from seit.tokenize.views import Crop

MAX_PIXELS = 178_956_970
"""Pixels (width × height) an image may have: 0.7 GB decoded, three times that in rare modes."""

LARGE_PIXELS = 1 << 25
"""Pixels from which on an image is decoded inside of ``exclusive``: 0.1 to 0.4 GB."""

_FORMATS: dict[str, type[ImageFile.ImageFile]] = {
    # The plain JPEG class also reads multi-picture files (MPO): their first picture is a JPEG.
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "JPEG2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
}
_NOT_IMAGES = (
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "an XML or SVG file"),
    (b"<svg", "an SVG drawing"),
    (b"%pdf", "a PDF"),
    (b"%!ps", "PostScript"),
    (b"version https://git-lfs", "a Git LFS pointer; run `git lfs pull`"),
)
_CROP_ZOOM = 4
"""A crop may show half of a side, and takes twice the pixels that it needs."""
_ORIENTATION_TAG = 0x0112
_BITS_PER_SAMPLE_TAG = 0x0102
_PHOTOMETRIC_TAG = 0x0106


def decode_image(
    data: bytes,
    *,
    size: int,
    max_pixels: int = MAX_PIXELS,
    exclusive: AbstractContextManager[Any] | None = None,
) -> NDArray[np.uint8]:
    """Decode one image to an upright RGB square: shorter side to ``size``, then the centre.

    The resampling is Pillow's antialiased bicubic, whose box is the exact (fractional) centre
    square of the picture. Safe to call from many threads; Pillow decodes and resizes without
    the interpreter lock.

    Args:
        data: the bytes of one image file.
        size: side of the result in pixels, at least 1.
        max_pixels: largest width × height accepted, in pixels; checked before decoding.
        exclusive: held while an image of more than ``LARGE_PIXELS`` is decoded, so that those who
            share it need the memory for one such image at a time.

    Returns:
        uint8 (size, size, 3), 0–255, RGB, C-contiguous and writable.

    Raises:
        UnreadableError: with a short reason, for whatever bytes are not such an image.
    """
    if size < 1:
        raise UsageError(f"size is {size}; expected at least 1 pixel")
    try:
        with _quiet, _open(data, max_pixels) as image:
            is_large = image.size[0] * image.size[1] > LARGE_PIXELS
            with exclusive if exclusive and is_large else nullcontext():
                return _square(image, size)
    except UnreadableError:
        raise
    except Exception as error:  # Pillow raises nearly anything on hostile bytes
        reason = _reason(error)
    raise UnreadableError(reason)


def decode_crops(
    data: bytes,
    crops: Sequence[Crop],
    *,
    size: int,
    max_pixels: int = MAX_PIXELS,
    exclusive: AbstractContextManager[Any] | None = None,
) -> list[NDArray[np.uint8]]:
    """Decode an image once and resize crops of it, as ``decode_image`` does the centre.

    Returns:
        one uint8 (size, size, 3), 0–255, RGB a crop.

    Raises:
        UnreadableError: with a short reason, for whatever bytes are not such an image.
    """
    try:
        with _quiet, _open(data, max_pixels) as image:
            is_large = image.size[0] * image.size[1] > LARGE_PIXELS
            with exclusive if exclusive and is_large else nullcontext():
                width, height = _load(image, _CROP_ZOOM * size)
                orientation = _orientation(image)
                return [
                    _resized_crop(image, crop, (width, height), size, orientation) for crop in crops
                ]
    except UnreadableError:
        raise
    except Exception as error:  # as above
        reason = _reason(error)
    raise UnreadableError(reason)


def decode_whole(data: bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode one image to upright RGB at its own size: uint8 (height, width, 3), 0–255.

    Raises:
        UnreadableError: with a short reason, for whatever bytes are not such an image.
    """
    try:
        with _quiet, _open(data, max_pixels) as image:
            image.load()
            pixels = _rgb(image, lambda source: source)
            return np.ascontiguousarray(_upright(pixels, _orientation(image)))
    except UnreadableError:
        raise
    except Exception as error:  # as above
        reason = _reason(error)
    raise UnreadableError(reason)


def picture_size(data: bytes) -> tuple[int, int]:
    """Read width and height of an image, in pixels, from its header; turned as it is stored.

    Raises:
        UnreadableError: with a short reason, for whatever bytes are not such an image.
    """
    try:
        with _quiet, _open(data, sys.maxsize) as image:
            width, height = image.size
            return width, height
    except UnreadableError:
        raise
    except Exception as error:  # as above
        reason = _reason(error)
    raise UnreadableError(reason)


def _open(data: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """Read the header. Not ``Image.open``: its own size check warns, and has no per-call limit."""
    if not data:
        raise UnreadableError("the file is empty")
    failure = ""
    for name, reader in _FORMATS.items():
        accept = Image.OPEN[name][1] if name in Image.OPEN else None
        if accept is None or accept(data[:16]) is not True:
            continue
        try:
            image = reader(io.BytesIO(data))
        except SyntaxError as error:  # Pillow's word for "not my format, or a broken header"
            text = _line(error)
            failure = failure if text.startswith("not a") else f"damaged {name} header ({text})"
            continue
        width, height = image.size
        if width * height > max_pixels:
            raise UnreadableError(
                f"{width} × {height} pixels is more than the limit of {max_pixels:,}"
            )
        return image
    start = data[:64].lstrip().lower()
    kind = next((what for prefix, what in _NOT_IMAGES if start.startswith(prefix)), None)
    raise UnreadableError(failure or f"not an image ({kind or 'unknown format'})")


def _load(image: ImageFile.ImageFile, side: int) -> tuple[float, float]:
    """Decode the pixels, of a JPEG no more of them than ``side`` needs; their width and height."""
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        width, height = map(float, image.size)
        drafted = image.draft(None, (side, side))
        if drafted is not None:
            width, height = drafted[1][2:]  # fractional: the last DCT block may be partial
        image.load()
        return width, height
    image.load()
    return float(image.size[0]), float(image.size[1])  # TIFF turns itself upright while loading


def _square(image: ImageFile.ImageFile, size: int) -> NDArray[np.uint8]:
    # Twice the size needed: DCT scaling alone is a poorer filter than the bicubic one.
    width, height = _load(image, 2 * size)
    orientation = _orientation(image)
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, min(left + side, image.size[0]), min(top + side, image.size[1]))

    def resized(source: Image.Image) -> Image.Image:
        return source.resize((size, size), Image.Resampling.BICUBIC, box=box)

    return np.ascontiguousarray(_upright(_rgb(image, resized), orientation))


def _resized_crop(
    image: ImageFile.ImageFile,
    crop: Crop,
    shape: tuple[float, float],
    size: int,
    orientation: int,
) -> NDArray[np.uint8]:
    left, top, right, bottom = crop.box(*shape)
    box = (left, top, min(right, image.size[0]), min(bottom, image.size[1]))

    def resized(source: Image.Image) -> Image.Image:
        return source.resize((size, size), Image.Resampling.BICUBIC, box=box)

    pixels = _upright(_rgb(image, resized), orientation)
    return np.ascontiguousarray(pixels[:, ::-1] if crop.flips else pixels)


def _rgb(
    image: ImageFile.ImageFile, resized: Callable[[Image.Image], Image.Image]
) -> NDArray[np.uint8]:
    """The colours of a loaded image, uint8 (H, W, 3), after ``resized``."""
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(resized(_grey_255(image))).clip(0, 255)
        rounded: NDArray[np.uint8] = np.rint(values).astype(np.uint8)
        return np.repeat(rounded[..., None], 3, axis=2)
    if image.has_transparency_data:
        rgba = np.array(resized(_as_mode(image, "RGBA").convert("RGBa")), dtype=np.uint16)
        # premultiplied: colour + (1 − alpha) · white
        composed: NDArray[np.uint8] = np.minimum(rgba[..., :3] + (255 - rgba[..., 3:]), 255).astype(
            np.uint8
        )
        return composed
    if image.mode in ("1", "L"):
        grey = np.asarray(resized(_as_mode(image, "L")))
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(resized(_as_mode(image, "RGB")))


def _as_mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # convert always copies


def _grey_255(image: ImageFile.ImageFile) -> Image.Image:
    """One-channel image of more than 8 bits → mode F, 0–255."""
    values = np.array(image, np.float32)
    low, high = float(values.min()), float(values.max())
    if image.mode == "F":
        if not (low >= 0 and high <= 1):
            raise UnreadableError(f"float values reach {low:g} … {high:g}; expected 0 … 1")
        values *= 255
        return Image.fromarray(values)
    tags = getattr(image, "tag_v2", {})
    full = 4095 if tags.get(_BITS_PER_SAMPLE_TAG) == (12,) else 65535
    if low < 0 or high > full:
        raise UnreadableError(f"integer values reach {low:g} … {high:g}; expected 0 … {full}")
    if tags.get(_PHOTOMETRIC_TAG) == 0:  # white is zero; Pillow inverts only 8-bit images
        np.subtract(full, values, out=values)
    values *= 255 / full
    return Image.fromarray(values)


def _orientation(image: ImageFile.ImageFile) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # broken metadata does not make the picture unreadable
        return 1
    return value if isinstance(value, int) else 1


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Apply an EXIF orientation, 1–8, to (H, W, 3); anything else leaves the pixels alone."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _line(error: BaseException) -> str:
    """Return the message of an error as one short printable line."""
    text = " ".join(str(error).split())
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text[:120] or type(error).__name__


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "decoding needs more memory than there is"
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels in a part of the file"
    text = _line(error)
    if isinstance(error, EOFError) or "truncated" in text.lower():
        return f"the file is truncated ({text})"
    return f"bad image data ({text})"


class _Quiet:
    """Silences warnings in the threads that are inside the ``with`` block, and only there.

    An instance is also the message pattern of its own filter entry: the interpreter calls
    ``match`` of the head filters for each warning and applies the first one that says yes.
    """

    def __init__(self) -> None:
        self._inside = threading.local()
        self._lock = threading.Lock()
        self._entry = ("ignore", self, Warning, None, 0)

    def match(self, _message: str) -> bool:
        return getattr(self._inside, "depth", 0) > 0

    def __enter__(self) -> None:
        # Others add filters too, and catch_warnings puts back whole lists: see that ours leads.
        filters: list[object] = warnings.filters  # type: ignore[assignment]
        if next(iter(filters), None) is not self._entry:
            with self._lock:
                filters.insert(0, self._entry)
                for index in reversed(range(1, len(filters))):
                    if filters[index] is self._entry:
                        del filters[index]
        self._inside.depth = getattr(self._inside, "depth", 0) + 1

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._inside.depth -= 1


_quiet = _Quiet()
