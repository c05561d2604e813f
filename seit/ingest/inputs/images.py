"""Conversion of image bytes to the uint8 square that a tokenizer or pixel baseline takes.

Every file takes the same path: recognize the format by its first bytes, check the size before
decoding, decode (JPEG: at the smallest DCT scale that still covers the result), convert to RGB,
resize and center-crop in one resampling, turn upright. Only the first frame or page is used.
docs/formats.md lists what each format becomes.

Only raster formats that Pillow decodes in process are tried: nothing here starts another program.
Whatever the bytes, the only error is ``UnreadableError``.
"""

import io
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, TypeVar

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
from seit.ingest.inputs.colors import settle_png, to_rgb
from seit.ingest.inputs.png import without_odd_metadata
from seit.ingest.inputs.quiet import quiet
from seit.ingest.inputs.remarks import Remark, ignore
from seit.ingest.inputs.signatures import is_heic, refusal
from seit.ingest.inputs.tiff import check_first_picture, count_pictures
from seit.ingest.inputs.views import Crop

MAX_PIXELS = 178_956_970
"""Default limit on pixels (width × height): 0.7 GB decoded, three times that in rare modes."""

LARGE_PIXELS = 1 << 25
"""Pixels from which on an image is decoded under ``exclusive``: 0.1 to 0.4 GB."""

SEVERAL = "several frames or pages; only the first is kept"

_FORMATS: dict[str, type[ImageFile.ImageFile]] = {
    # The plain JPEG class also reads multi-picture files (MPO), whose first picture is a JPEG.
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
_CROP_ZOOM = 4
"""Zoom allowance of crops: a crop may cover half a side, and uses twice the pixels it needs."""
_ORIENTATION_TAG = 0x0112
_END_OF_JPEG = b"\xff\xd9"
_FILLING = bytes(16)
_MAX_SEGMENTS = 1 << 12

_T = TypeVar("_T")


def decode_image(
    data: bytes,
    *,
    size: int,
    max_pixels: int = MAX_PIXELS,
    exclusive: AbstractContextManager[Any] | None = None,
    remark: Remark = ignore,
) -> NDArray[np.uint8]:
    """Decode one image to an upright RGB square: shorter side to ``size``, then the center.

    Resamples by Pillow's antialiased bicubic from the exact (fractional) center square of the
    picture. Thread-safe; Pillow releases the interpreter lock.

    Args:
        data: bytes of one image file.
        size: side of the result in pixels, at least 1.
        max_pixels: largest width × height accepted, in pixels; checked before decoding.
        exclusive: lock held while an image of more than ``LARGE_PIXELS`` is decoded, so that all
            who share it need memory for one such image at a time.
        remark: callback that receives a sentence for each thing dropped or assumed.

    Returns:
        uint8 (size, size, 3), 0–255, RGB, C-contiguous and writable.

    Raises:
        UnreadableError: the bytes are not such an image; the message is a short reason.
    """
    if size < 1:
        raise UsageError(f"size is {size}; expected at least 1 pixel")

    def square(image: ImageFile.ImageFile) -> NDArray[np.uint8]:
        return _square(image, size, remark)

    return _decode(data, square, max_pixels=max_pixels, exclusive=exclusive, remark=remark)


def decode_crops(
    data: bytes,
    crops: Sequence[Crop],
    *,
    size: int,
    max_pixels: int = MAX_PIXELS,
    exclusive: AbstractContextManager[Any] | None = None,
) -> list[NDArray[np.uint8]]:
    """Decode an image once and resize crops of it, as ``decode_image`` does the center.

    Returns:
        One uint8 (size, size, 3), 0–255, RGB, per crop.

    Raises:
        UnreadableError: the bytes are not such an image; the message is a short reason.
    """

    def cut(image: ImageFile.ImageFile) -> list[NDArray[np.uint8]]:
        shape = _load(image, _CROP_ZOOM * size)
        orientation = _orientation(image)
        return [_resized_crop(image, crop, shape, size, orientation) for crop in crops]

    return _decode(data, cut, max_pixels=max_pixels, exclusive=exclusive, remark=ignore)


def decode_whole(
    data: bytes, *, max_pixels: int = MAX_PIXELS, remark: Remark = ignore
) -> NDArray[np.uint8]:
    """Decode one image to upright RGB at its own size: uint8 (height, width, 3), 0–255.

    Raises:
        UnreadableError: the bytes are not such an image; the message is a short reason.
    """

    def whole(image: ImageFile.ImageFile) -> NDArray[np.uint8]:
        image.load()
        pixels = to_rgb(image, lambda source: source, remark)
        return np.ascontiguousarray(_upright(pixels, _orientation(image)))

    return _decode(data, whole, max_pixels=max_pixels, exclusive=None, remark=remark)


def _decode(
    data: bytes,
    make: Callable[[ImageFile.ImageFile], _T],
    *,
    max_pixels: int,
    exclusive: AbstractContextManager[Any] | None,
    remark: Remark,
) -> _T:
    """Decode an image; retry without a PNG's metadata if that may be the damaged part."""
    try:
        return _attempt(data, make, max_pixels, exclusive, remark)
    except UnreadableError:
        repaired = without_odd_metadata(data)
        if len(repaired) == len(data):
            raise
    return _attempt(repaired, make, max_pixels, exclusive, remark)


def _attempt(
    data: bytes,
    make: Callable[[ImageFile.ImageFile], _T],
    max_pixels: int,
    exclusive: AbstractContextManager[Any] | None,
    remark: Remark,
) -> _T:
    try:
        with quiet, _open(data, max_pixels) as image:
            is_large = image.size[0] * image.size[1] > LARGE_PIXELS
            with exclusive if exclusive and is_large else nullcontext():
                made = make(image)
            if _has_several(image, data):
                remark(SEVERAL)
            return made
    except UnreadableError:
        raise
    except Exception as error:  # Pillow raises nearly anything on hostile bytes
        reason = _reason(error)
    raise UnreadableError(reason)


def picture_size(data: bytes) -> tuple[int, int]:
    """Read the width and height of an image from its header, in pixels, as stored (not rotated).

    Raises:
        UnreadableError: the bytes are not such an image; the message is a short reason.
    """
    try:
        with quiet, _open(data, sys.maxsize) as image:
            width, height = image.size
            return width, height
    except UnreadableError:
        raise
    except Exception as error:  # as above
        reason = _reason(error)
    raise UnreadableError(reason)


def _open(data: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """Read the header without ``Image.open``, whose size check warns and has no per-call limit."""
    if not data:
        raise UnreadableError("the file is empty")
    if is_heic(data):  # may share its first brand with AVIF
        raise UnreadableError(refusal(data, "image"))
    failure = ""
    for name, reader in _FORMATS.items():
        accept = Image.OPEN[name][1] if name in Image.OPEN else None
        if accept is None or accept(data[:16]) is not True:
            continue
        if name == "TIFF":  # before the decoder, which does not recognize raw files
            check_first_picture(data)
        try:
            image = reader(io.BytesIO(data))
        except SyntaxError as error:  # Pillow's error for "not my format, or a broken header"
            text = _line(error)
            failure = failure if text.startswith("not a") else f"damaged {name} header ({text})"
            continue
        width, height = image.size
        if width * height > max_pixels:
            raise UnreadableError(
                f"{width} × {height} pixels is more than the limit of {max_pixels:,}"
            )
        _check_file(image, data)
        return image
    raise UnreadableError(failure or refusal(data, "image"))


def _check_file(image: ImageFile.ImageFile, data: bytes) -> None:
    """Refuse files whose decoded pixels would not be those of their picture."""
    if isinstance(image, JpegImagePlugin.JpegImageFile) and _is_filled_up(data):
        raise UnreadableError("the file is truncated (its rest is zeros)")
    if isinstance(image, PngImagePlugin.PngImageFile):
        if data[12:16] == b"CgBI":
            raise UnreadableError(
                "a PNG in Apple's own variant (CgBI) is not supported; convert it, for example "
                "with pngcrush -revert-iphone-optimizations"
            )
        settle_png(image, data)


def _is_filled_up(data: bytes) -> bool:
    """Return True if a JPEG ends in zeros, as after an interrupted copy to a preallocated file."""
    if not data.endswith(_FILLING):
        return False
    place = 2
    for _ in range(_MAX_SEGMENTS):
        if data[place : place + 1] != b"\xff" or data[place + 1 : place + 2] == b"\xda":
            break  # the first scan; a thumbnail inside a segment has its own end
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return data.find(_END_OF_JPEG, place) < 0


def _has_several(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Return True if there are more frames or pages than the decoded one."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return count_pictures(data) > 1
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        return False  # other pictures of multi-picture files are depths, gains and previews
    with suppress(Exception):  # a damaged second frame of a GIF
        return bool(getattr(image, "is_animated", False))
    return True


def _load(image: ImageFile.ImageFile, side: int) -> tuple[float, float]:
    """Decode the pixels, for a JPEG no more than ``side`` needs; return their width and height."""
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        width, height = map(float, image.size)
        drafted = image.draft(None, (side, side))
        if drafted is not None:
            width, height = drafted[1][2:]  # fractional: the last DCT block may be partial
        image.load()
        return width, height
    image.load()
    return float(image.size[0]), float(image.size[1])  # TIFF turns itself upright while loading


def _square(image: ImageFile.ImageFile, size: int, remark: Remark) -> NDArray[np.uint8]:
    # Twice the size needed, since DCT scaling alone is a poorer filter than bicubic.
    width, height = _load(image, 2 * size)
    orientation = _orientation(image)
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, min(left + side, image.size[0]), min(top + side, image.size[1]))

    def resized(source: Image.Image) -> Image.Image:
        return source.resize((size, size), Image.Resampling.BICUBIC, box=box)

    return np.ascontiguousarray(_upright(to_rgb(image, resized, remark), orientation))


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

    pixels = _upright(to_rgb(image, resized, ignore), orientation)
    return np.ascontiguousarray(pixels[:, ::-1] if crop.flips else pixels)


def _orientation(image: ImageFile.ImageFile) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # broken metadata does not make the picture unreadable
        return 1
    return value if isinstance(value, int) else 1


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Apply an EXIF orientation, 1–8, to (H, W, 3); ignore any other value."""
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
