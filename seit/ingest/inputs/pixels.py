"""Decoding of images to pixels, for tokenizers and baselines.

Legend: S image side.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from seit.errors import UnreadableError
from seit.ingest.inputs.images import decode_crops, decode_image
from seit.ingest.inputs.reader import LARGE_FILE_BYTES, Decoded, Reader, Sample
from seit.ingest.inputs.remarks import InputRemarks
from seit.ingest.inputs.views import Crop, view_key
from seit.ingest.sources import Instance, read_bytes

_AHEAD_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class View(Instance):
    """One view of an image, as an instance of its own, with the view's key.

    Attributes:
        crop: its place in the image.
    """

    crop: Crop | None = None

    @classmethod
    def of(cls, instance: Instance, number: int, *, seed: int) -> "View":
        """Return view ``number``, from 1 on, of an instance of a job with this seed."""
        return cls(
            view_key(instance.key, number),
            instance.split,
            instance.label,
            instance.location,
            instance.metadata,
            instance.num_bytes,
            Crop.draw(seed=seed, key=instance.key, view=number),
        )


@dataclass(frozen=True)
class ImageDecoder:
    """Decoder that reads and decodes an instance, or gives the reason why it cannot.

    Instances of the training split make ``views`` samples; all but the first depend on ``seed``.
    An instance of one `View` makes that.
    """

    size: int
    max_pixels: int
    views: int = 1
    seed: int = 0

    def __call__(self, item: Instance, /, *, exclusive: AbstractContextManager[Any]) -> Decoded:
        """Decode an instance, with memory-intensive work done under ``exclusive``."""
        is_large = item.num_bytes >= LARGE_FILE_BYTES
        num_bytes = 0
        remarks = InputRemarks()
        try:
            with exclusive if is_large else nullcontext():
                data = read_bytes(item)
                num_bytes = len(data)
                # Already held if the file is large.
                inner = None if is_large else exclusive
                if isinstance(item, View) and item.crop is not None:
                    (cropped,) = self._decode_crops(data, [item.crop], inner)
                    return Decoded(item, num_bytes, (Sample(item, cropped),))
                pixels = decode_image(
                    data,
                    size=self.size,
                    max_pixels=self.max_pixels,
                    exclusive=inner,
                    remark=remarks,
                )
                views = [Sample(item, pixels), *self._crops(item, data, inner)]
        except UnreadableError as error:
            return Decoded(item, num_bytes, reason=str(error))
        return Decoded(item, num_bytes, tuple(views), remarks=remarks.sentences)

    def _crops(
        self, item: Instance, data: bytes, exclusive: AbstractContextManager[Any] | None
    ) -> list[Sample]:
        if self.views == 1 or item.split != "train":
            return []
        numbers = range(1, self.views)
        crops = [Crop.draw(seed=self.seed, key=item.key, view=number) for number in numbers]
        decoded = self._decode_crops(data, crops, exclusive)
        return [
            Sample(replace(item, key=view_key(item.key, number)), pixels)
            for number, pixels in zip(numbers, decoded, strict=True)
        ]

    def _decode_crops(
        self, data: bytes, crops: list[Crop], exclusive: AbstractContextManager[Any] | None
    ) -> list[npt.NDArray[np.uint8]]:
        return decode_crops(
            data, crops, size=self.size, max_pixels=self.max_pixels, exclusive=exclusive
        )


class PixelReader(Reader):
    """Reader that decodes images in a pool of threads (Pillow releases the lock) or processes."""

    def __init__(
        self,
        *,
        size: int,
        max_pixels: int,
        views: int = 1,
        seed: int = 0,
        workers: int | None = None,
        processes: bool = False,
    ) -> None:
        decoder = ImageDecoder(size, max_pixels, views, seed)
        super().__init__(decoder, workers=workers, processes=processes)
        self._image_bytes = 3 * size * size * views

    @override
    def read(self, instances: Iterable[Instance], *, ahead: int = 128) -> Iterator[Decoded]:
        """Yield decoded instances in order, holding at most ``ahead``.

        Fewer large images are held: up to 64 MB, or a single one.
        """
        return super().read(instances, ahead=max(1, min(ahead, _AHEAD_BYTES // self._image_bytes)))
