"""Detection of TIFF files whose first picture is a thumbnail, such as camera raw files.

Cameras store raw files as TIFF. Usually the first directory describes a small preview, and others
hold the sensor values. A decoder that takes the first picture would silently return the preview, so
such files are refused. (TIFF 6.0; TIFF/EP, ISO 12234-2; DNG 1.7.)
"""

import struct
from collections.abc import Iterator, Mapping

from seit.errors import UnreadableError
from seit.ingest.inputs.signatures import CAMERA_RAW

_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _PHOTOMETRIC = 254, 255, 256, 257, 262
_SUB_DIRECTORIES, _DNG_VERSION = 330, 50706
_WANTED = (_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _PHOTOMETRIC, _SUB_DIRECTORIES, _DNG_VERSION)
_SENSOR_VALUES = (32803, 34892)
"""Photometric interpretations of mosaics and of linear raw values."""
_FORMATS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_MAX_DIRECTORIES, _MAX_ENTRIES, _MAX_COUNT = 16, 4096, 16

Tags = Mapping[int, tuple[int, ...]]
"""Values of the relevant tags."""


def check_first_picture(data: bytes) -> None:
    """Refuse a TIFF that is a camera raw file or whose first picture is a thumbnail.

    Raises:
        UnreadableError: it is one; the reason says what to do.
    """
    directories = list(read_directories(data))
    if not directories:
        return  # the decoder reports the fault
    first = directories[0]
    inner = [
        found
        for offset in first.get(_SUB_DIRECTORIES, ())
        for found in read_directories(data, offset, most=1)
    ]
    is_raw = _DNG_VERSION in first or data[8:10] == b"CR"
    if is_raw or any(_of(tags, _PHOTOMETRIC) in _SENSOR_VALUES for tags in directories + inner):
        raise UnreadableError(f"{CAMERA_RAW.name} is not supported; {CAMERA_RAW.advice}")
    if _is_reduced(first) or any(
        _pixels(tags) > _pixels(first) and not _is_reduced(tags) for tags in inner
    ):
        raise UnreadableError(
            "its first picture is a thumbnail of another one (a camera raw file?); "
            f"{CAMERA_RAW.advice}"
        )


def count_pictures(data: bytes) -> int:
    """Return the number of pictures in a TIFF, up to 16, without reduced copies and masks."""
    return sum(1 for tags in read_directories(data) if not _of(tags, _SUBFILE) & 5)


def read_directories(
    data: bytes, offset: int | None = None, *, most: int = _MAX_DIRECTORIES
) -> Iterator[Tags]:
    """Yield the directories of a TIFF or BigTIFF file, up to ``most``, as far as they exist."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return
    is_big = 43 in data[2:4]
    count_format, entry_bytes, pointer = ("Q", 20, "Q") if is_big else ("H", 12, "I")
    try:
        if offset is None:
            (offset,) = struct.unpack_from(order + pointer, data, 8 if is_big else 4)
        for _ in range(most):
            (count,) = struct.unpack_from(order + count_format, data, offset)
            if not offset or count > _MAX_ENTRIES:
                return
            start = offset + struct.calcsize(order + count_format)
            entries = range(start, start + count * entry_bytes, entry_bytes)
            yield dict(filter(None, (_entry(data, at, order, pointer) for at in entries)))
            (offset,) = struct.unpack_from(order + pointer, data, start + count * entry_bytes)
    except struct.error:  # truncated
        return


def _entry(data: bytes, at: int, order: str, pointer: str) -> tuple[int, tuple[int, ...]] | None:
    tag, kind, count = struct.unpack_from(f"{order}HH{pointer}", data, at)
    if tag not in _WANTED or kind not in _FORMATS or not 1 <= count <= _MAX_COUNT:
        return None
    layout = f"{order}{count}{_FORMATS[kind]}"
    place = at + struct.calcsize(f"{order}HH{pointer}")
    if struct.calcsize(layout) > struct.calcsize(order + pointer):
        (place,) = struct.unpack_from(order + pointer, data, place)
    return tag, struct.unpack_from(layout, data, place)


def _of(tags: Tags, tag: int) -> int:
    return tags.get(tag, (0,))[0]


def _pixels(tags: Tags) -> int:
    return _of(tags, _WIDTH) * _of(tags, _HEIGHT)


def _is_reduced(tags: Tags) -> bool:
    return bool(_of(tags, _SUBFILE) & 1) or _of(tags, _OLD_SUBFILE) == 2
