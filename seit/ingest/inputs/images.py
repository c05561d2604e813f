"""Image bytes → the uint8 square that a tokenizer or a pixel baseline sees.

Every file goes the same way: recognize it by its first bytes, check its size before decoding,
decode (JPEG: at the smallest DCT scale that still covers the result), make it RGB, resize and
center-crop in one resampling, turn it upright. Of an animation or of several pages the first is
used. What each format becomes is in docs/formats.md.

Safety. Only raster formats that Pillow decodes in process are tried: nothing here starts another
program. Whatever the bytes, the only error is ``UnreadableError``.
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
"""Pixels (width × height) an image may have: 0.7 GB decoded, three times that in rare modes."""

LARGE_PIXELS = 1 << 25
"""Pixels from which on an image is decoded inside of ``exclusive``: 0.1 to 0.4 GB."""

SEVERAL = "several frames or pages; only the first is kept"

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
_CROP_ZOOM = 4
"""A crop may show half of a side, and takes twice the pixels that it needs."""
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

    The resampling is Pillow's antialiased bicubic, whose box is the exact (fractional) center
    square of the picture. Safe to call from many threads; Pillow decodes and resizes without
    the interpreter lock.

    Args:
        data: the bytes of one image file.
        size: side of the result in pixels, at least 1.
        max_pixels: largest width × height accepted, in pixels; checked before decoding.
        exclusive: held while an image of more than ``LARGE_PIXELS`` is decoded, so that those who
            share it need the memory for one such image at a time.
        remark: called with what was left out or assumed, a sentence each.

    Returns:
        uint8 (size, size, 3), 0–255, RGB, C-contiguous and writable.

    Raises:
        UnreadableError: with a short reason, for whatever bytes are not such an image.
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
        one uint8 (size, size, 3), 0–255, RGB a crop.

    Raises:
        UnreadableError: with a short reason, for whatever bytes are not such an image.
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
        UnreadableError: with a short reason, for whatever bytes are not such an image.
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
    """Decode, and once more without the metadata of a PNG if it may be that which is damaged."""
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
    """Read width and height of an image, in pixels, from its header; turned as it is stored.

    Raises:
        UnreadableError: with a short reason, for whatever bytes are not such an image.
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
    """Read the header. Not ``Image.open``: its own size check warns, and has no per-call limit."""
    if not data:
        raise UnreadableError("the file is empty")
    if is_heic(data):  # it may share its first brand with AVIF
        raise UnreadableError(refusal(data, "image"))
    failure = ""
    for name, reader in _FORMATS.items():
        accept = Image.OPEN[name][1] if name in Image.OPEN else None
        if accept is None or accept(data[:16]) is not True:
            continue
        if name == "TIFF":  # before the decoder, which does not know what raw files hold
            check_first_picture(data)
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
        _check_file(image, data)
        return image
    raise UnreadableError(failure or refusal(data, "image"))


def _check_file(image: ImageFile.ImageFile, data: bytes) -> None:
    """Refuse files whose pixels would be others than those of their picture."""
    if isinstance(image, JpegImagePlugin.JpegImageFile) and _is_filled_up(data):
        raise UnreadableError("the file is truncated (zeros stand where the rest of it should be)")
    if isinstance(image, PngImagePlugin.PngImageFile):
        if data[12:16] == b"CgBI":
            raise UnreadableError(
                "a PNG in Apple's own variant (CgBI) is not supported; convert it, for example "
                "with pngcrush -revert-iphone-optimizations"
            )
        settle_png(image, data)


def _is_filled_up(data: bytes) -> bool:
    """Whether a JPEG has no end but zeros, as an interrupted copy to a file of full length has."""
    if not data.endswith(_FILLING):
        return False
    place = 2
    for _ in range(_MAX_SEGMENTS):
        if data[place : place + 1] != b"\xff" or data[place + 1 : place + 2] == b"\xda":
            break  # the first scan; a thumbnail inside of a segment has an end of its own
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return data.find(_END_OF_JPEG, place) < 0


def _has_several(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Whether there are more frames or pages than the one that was decoded."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return count_pictures(data) > 1
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        return False  # what follows in multi-picture files are depths, gains and previews
    with suppress(Exception):  # a damaged second frame of a GIF
        return bool(getattr(image, "is_animated", False))
    return True


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


def _square(image: ImageFile.ImageFile, size: int, remark: Remark) -> NDArray[np.uint8]:
    # Twice the size needed: DCT scaling alone is a poorer filter than the bicubic one.
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
