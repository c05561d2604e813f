"""Copies of a corpus in fewer bytes: JPEG of lower quality, or of smaller pictures.

A copy is a folder tree with each picture under its key, so that a store of the original provides
labels and splits. Names keep their extension, whatever it is; files are recognized by their bytes.

Legend: S image side.
"""

import io
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from seit.analysis.frontier.points import Point
from seit.errors import SeitError, UnreadableError, UsageError
from seit.files import PARTIAL_SUFFIX, explained_writes
from seit.ingest import (
    LARGE_FILE_BYTES,
    MAX_PIXELS,
    DecodingPool,
    Instance,
    decode_whole,
    list_corpus,
    read_bytes,
    size_of,
    spread_evenly,
)
from seit.shards import Split
from seit.stream import PixelLoader
from seit.tokenizers import mean_psnr, varies

PSNR_IMAGES = 128
_AHEAD = 64
_ESTIMATED = 32
"""Instances that an estimate reads."""
Advance = Callable[[int, int], None]
"""Callback that receives (files done, total files)."""


@dataclass(frozen=True)
class JpegCopier:
    """Encoder of a file into the bytes of its copy.

    The center square of the picture is resized to S / ``divisor`` and written as baseline JPEG with
    optimized Huffman tables and without metadata. S is ``size``, or the picture's shorter side if
    that is smaller, since enlarging would cost bytes and add nothing.
    """

    size: int
    quality: int
    divisor: int = 1

    def encode(self, data: bytes) -> bytes:
        """Return the copy of a file.

        Raises:
            UnreadableError: it is not an image.
        """
        pixels = decode_whole(data, max_pixels=MAX_PIXELS)
        height, width = pixels.shape[:2]
        square = min(height, width)
        side = max(1, round(min(self.size, square) / self.divisor))
        left, top = (width - square) / 2, (height - square) / 2
        image = Image.fromarray(pixels).resize(
            (side, side), Image.Resampling.BICUBIC, box=(left, top, left + square, top + square)
        )
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=self.quality, optimize=True)
        return buffer.getvalue()


def copier_of(point: Point, *, size: int) -> JpegCopier:
    """Return the function that makes a point's copies of pictures."""
    assert point.quality, "only JPEG and lower resolutions are copies"
    return JpegCopier(size, point.quality, point.divisor)


@dataclass(frozen=True)
class _Writer:
    """Writer of the copy of an instance below ``folder``, unless it exists."""

    copier: JpegCopier
    folder: Path

    def __call__(self, item: Instance, /, *, exclusive: AbstractContextManager[Any]) -> None:
        path = self.folder / item.key
        if path.exists():
            return
        with exclusive if item.num_bytes >= LARGE_FILE_BYTES else nullcontext():
            try:
                data = self.copier.encode(read_bytes(item))
            except UnreadableError as error:
                raise SeitError(f"{item.key} can no longer be read: {error}") from error
        with explained_writes(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(path.name + PARTIAL_SUFFIX)
            partial.write_bytes(data)
            partial.replace(path)


def make_copy(
    instances: Sequence[Instance],
    folder: Path,
    copier: JpegCopier,
    *,
    workers: int | None = None,
    advance: Advance | None = None,
) -> None:
    """Copy the instances into ``folder``, which appears once it is complete.

    An interrupted copy resumes; a complete one is left as it is.

    Raises:
        UsageError: keys are not valid names of files below a folder.
        SeitError: the disk is full, or a file can no longer be read.
    """
    if folder.is_dir():
        return
    _check_keys(instances)
    unfinished = folder.with_name(folder.name + PARTIAL_SUFFIX)
    with explained_writes(unfinished):
        unfinished.mkdir(parents=True, exist_ok=True)
    pool: DecodingPool[Instance, None] = DecodingPool(
        _Writer(copier, unfinished), workers=workers or os.cpu_count() or 1
    )
    try:
        for done, _ in enumerate(pool.map(instances, ahead=_AHEAD), start=1):
            if advance:
                advance(done, len(instances))
    finally:
        pool.close()
    listed = {entry.key for entry in list_corpus(unfinished).instances}
    lost = next((entry.key for entry in instances if entry.key not in listed), None)
    if lost is not None:
        raise UsageError(f"the key {lost!r} is that of no file in a folder tree; rename the file")
    with explained_writes(folder):
        unfinished.replace(folder)


def _check_keys(instances: Sequence[Instance]) -> None:
    for entry in instances:
        parts = entry.key.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise UsageError(
                f"{entry.key!r} is not a path below SRC, so its copy has no place; pass a folder "
                "of class folders, or a manifest whose paths are relative to its folder"
            )


def copied_bytes(folder: Path, keys: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the sizes of the files of these keys, in bytes: int64 (n,).

    Raises:
        SeitError: a file is missing.
    """
    try:
        return np.array([(folder / key).stat().st_size for key in keys], dtype=np.int64)
    except OSError as error:
        raise SeitError(
            f"{error.filename} is missing; remove {folder} to have the copy made again"
        ) from error


def copy_psnr(split: Split, source: str | Path, folder: Path) -> float:
    """Return the mean PSNR in dB of copies against originals, on up to 128 squares of a split.

    Both are resized to the store's squares, as in training. Pictures of one color, which may be
    copied exactly, are left out if there are others, as for tokenizers.
    """
    rows = np.array(spread_evenly(range(len(split)), PSNR_IMAGES), dtype=np.int64)
    first, second = (
        torch.from_numpy(read_squares(split, place, rows)) for place in (source, folder)
    )
    errors = (first.double() - second.double()).square().flatten(1).mean(1)
    return mean_psnr(errors, varies(first), peak=255)


def read_squares(
    split: Split, source: str | Path, rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    """Decode some rows of a split as the network sees them: uint8 (n, S, S, 3)."""
    loader = PixelLoader(
        split, source, batch_size=1, shuffle=False, seed=0, device="cpu", resident=False
    )
    squares: npt.NDArray[np.uint8] = loader.read(rows).permute(0, 2, 3, 1).numpy()
    return squares


def original_bytes(instances: Sequence[Instance]) -> float:
    """Return the mean bytes of the files of instances: of a few if the listing lacks some.

    Raises:
        SeitError: a file or its server cannot be reached.
    """
    if any(entry.num_bytes < 0 for entry in instances):
        instances = spread_evenly(instances, _ESTIMATED)
    return sum(map(size_of, instances)) / len(instances)


def estimated_bytes(instances: Sequence[Instance], copier: JpegCopier) -> float:
    """Return the mean bytes of the copies of a few instances.

    Raises:
        UsageError: none of them can be read.
    """
    sizes, reason = [], "there are none"
    for entry in spread_evenly(instances, _ESTIMATED):
        try:
            sizes.append(len(copier.encode(read_bytes(entry))))
        except UnreadableError as error:
            reason = f"{entry.key} {error}"
    if not sizes:
        raise UsageError(f"no picture can be read to make copies of ({reason}); check SRC")
    return sum(sizes) / len(sizes)
