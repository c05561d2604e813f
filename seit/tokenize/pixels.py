"""Images → pixels: what decodes them for tokenizers and for baselines.

Shape letters: S image side.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from seit.errors import UnreadableError
from seit.tokenize.decode import decode_image
from seit.tokenize.reading import LARGE_FILE_BYTES, Decoded, Reader, Sample
from seit.tokenize.sources import Instance, read_bytes

_AHEAD_BYTES = 64 << 20


@dataclass(frozen=True)
class ImageDecoder:
    """Reads an instance and decodes it; one that is unreadable comes with the reason."""

    size: int
    max_pixels: int

    def __call__(self, item: Instance, /, *, exclusive: AbstractContextManager[Any]) -> Decoded:
        """Decode; what takes very much memory is done inside of ``exclusive``."""
        is_large = item.num_bytes >= LARGE_FILE_BYTES
        num_bytes = 0
        try:
            with exclusive if is_large else nullcontext():
                data = read_bytes(item)
                num_bytes = len(data)
                pixels = decode_image(
                    data,
                    size=self.size,
                    max_pixels=self.max_pixels,
                    exclusive=None if is_large else exclusive,
                )
        except UnreadableError as error:
            return Decoded(item, num_bytes, reason=str(error))
        return Decoded(item, num_bytes, (Sample(item, pixels),))


class PixelReader(Reader):
    """Decodes images in a pool of threads (Pillow works without the lock) or of processes."""

    def __init__(
        self, *, size: int, max_pixels: int, workers: int | None = None, processes: bool = False
    ) -> None:
        super().__init__(ImageDecoder(size, max_pixels), workers=workers, processes=processes)
        self._image_bytes = 3 * size * size

    @override
    def read(self, instances: Iterable[Instance], *, ahead: int = 128) -> Iterator[Decoded]:
        """Yield the instances in their order, decoded; at most ``ahead`` are held at a time.

        Of large images fewer are held: they take up to 64 MB, or what a single one takes.
        """
        return super().read(instances, ahead=max(1, min(ahead, _AHEAD_BYTES // self._image_bytes)))
