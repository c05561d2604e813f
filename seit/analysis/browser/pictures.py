"""Pictures of samples: decoded in batches by one thread, encoded, and cached up to a fixed size.

A page of samples is requested as a whole when its list is rendered, so that it is decoded as one
batch by the time the browser asks for the pictures one by one. The latest page comes first, even if
it has to interrupt another, and only a few wait: older ones, which were scrolled past, are dropped.

Legend: n samples, H W grid.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from seit.analysis.browser.colors import ColorMap
from seit.errors import SeitError
from seit.report import picture_file
from seit.shards import Store

if TYPE_CHECKING:
    from seit.tokenizers import Tokenizer

CACHE_BYTES = 64 << 20
"""Most bytes of encoded pictures kept in memory."""
THUMBNAIL = 160
"""Longer side of a picture in a list, in pixels."""
LARGE = 640
"""Longer side of a large picture, in pixels, at most."""
_WAITING_PAGES = 6
"""More than a window and its margins show at once."""
_BATCH = 16
"""Samples decoded together; more would only take more memory."""

Address = tuple[str, int]
"""Split and row of a sample."""


@dataclass(frozen=True)
class Encoded:
    """Encoded picture: `png` or `jpeg`, and its bytes."""

    kind: str
    data: bytes


class ScrolledPastError(SeitError):
    """Picture of a page that was dropped for later ones."""


class Painter:
    """Draws ids as pictures: as the tokenizer decodes them, or by a map of colors without it.

    Attributes:
        remark: reason for drawing colors instead of pictures; empty if pictures are drawn.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.remark = ""
        self.tokenizer: Tokenizer | None = None
        self._lock = threading.Lock()
        self._draw = self._choose()

    @cached_property
    def colors(self) -> ColorMap:
        """Map of colors of ids."""
        return ColorMap(self.store)

    def draw(
        self, tokens: npt.NDArray[np.unsignedinteger], *, quick: bool = False
    ) -> npt.NDArray[np.uint8]:
        """Draw ids (n, H, W) as pictures uint8 (n, height, width, 3).

        With ``quick``, networks that decode images compute in bfloat16 where the processor does:
        2.6 times faster, and 2 of 255 levels off at most.
        """
        with self._lock, self._precision(quick):
            parts = [
                self._draw(tokens[start : start + _BATCH])
                for start in range(0, len(tokens), _BATCH)
            ]
        return np.concatenate(parts)

    def _precision(self, quick: bool) -> AbstractContextManager[object]:
        is_image = self.tokenizer is not None and self.tokenizer.modality == "image"
        if not (quick and is_image and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
            return nullcontext()
        return torch.autocast("cpu", torch.bfloat16)

    def _choose(self) -> Callable[[npt.NDArray[np.unsignedinteger]], npt.NDArray[np.uint8]]:
        from seit.tokenizers import decode_pictures

        try:
            tokenizer = self.store.load_tokenizer()
            grid = np.zeros((1, *self.store.card.layout.grid), dtype=np.uint16)
            tokenizer.decode(grid)
        except SeitError as error:
            self.remark = str(error)
            return self.colors
        self.tokenizer = tokenizer
        return lambda ids: decode_pictures(tokenizer, ids)


class PictureCache:
    """Encoded pictures by any key, least recently used first out; thread-safe."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._held: OrderedDict[object, Encoded] = OrderedDict()
        self._lock = threading.Lock()
        self.num_bytes = 0

    def get(self, key: object) -> Encoded | None:
        """Return a picture, or None."""
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
            return found

    def put(self, key: object, picture: Encoded) -> None:
        """Keep a picture, dropping the ones that were not used for longest."""
        with self._lock:
            before = self._held.pop(key, None)
            self.num_bytes += len(picture.data) - (len(before.data) if before else 0)
            self._held[key] = picture
            while self.num_bytes > self._max_bytes and len(self._held) > 1:
                _, dropped = self._held.popitem(last=False)
                self.num_bytes -= len(dropped.data)


@dataclass
class _Page:
    """Samples to decode together."""

    addresses: Sequence[Address]
    tokens: npt.NDArray[np.unsignedinteger]
    results: dict[Address, Future[Encoded]] = field(default_factory=dict)
    painted: int = 0


class Thumbnails:
    """Small pictures of samples, decoded page by page in one thread."""

    def __init__(
        self,
        painter: Callable[[], Painter],
        read: Callable[[Address], npt.NDArray[np.unsignedinteger]],
        cache: PictureCache,
    ) -> None:
        self._painter = painter
        self._read = read
        self._cache = cache
        self._waiting: deque[_Page] = deque()
        self._results: dict[Address, Future[Encoded]] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def request(
        self, addresses: Sequence[Address], tokens: npt.NDArray[np.unsignedinteger]
    ) -> None:
        """Ask for the pictures of ids (n, H, W); the latest request is served first."""
        with self._changed:
            new = [
                place
                for place, address in enumerate(addresses)
                if self._cache.get(address) is None and address not in self._results
            ]
            if not new:
                return
            page = _Page([addresses[place] for place in new], tokens[new])
            page.results = {address: Future() for address in page.addresses}
            self._results |= page.results
            self._waiting.append(page)
            while len(self._waiting) > _WAITING_PAGES:
                self._drop(self._waiting.popleft())
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="pictures")
                self._thread.start()
            self._changed.notify()

    def picture(self, address: Address) -> Encoded:
        """Return the picture of a sample, waiting for its page or decoding it alone.

        Raises:
            ScrolledPastError: its page was dropped for later ones.
            SeitError: it cannot be read or decoded.
        """
        found = self._cache.get(address)
        if found is not None:
            return found
        with self._changed:
            result = self._results.get(address)
        if result is not None:
            try:
                return result.result()
            except CancelledError:
                raise ScrolledPastError(
                    "this picture was scrolled past before it was drawn; scroll back to see it"
                ) from None
        picture = self._painter().draw(self._read(address)[None], quick=True)[0]
        return self._keep(address, picture)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                page = self._waiting[-1]
                start, page.painted = page.painted, page.painted + _BATCH
                if page.painted >= len(page.addresses):
                    self._waiting.pop()
            self._paint(page, slice(start, page.painted))

    def _paint(self, page: _Page, rows: slice) -> None:
        part = page.addresses[rows]
        try:
            pictures = self._painter().draw(page.tokens[rows], quick=True)
            for address, picture in zip(part, pictures, strict=True):
                self._finish(page.results[address], self._keep(address, picture))
        except Exception as error:
            for address in part:
                self._finish(page.results[address], error)
        with self._changed:
            for address in part:
                self._results.pop(address, None)

    @staticmethod
    def _finish(result: Future[Encoded], outcome: Encoded | Exception) -> None:
        """Answer who waits, unless the page was dropped meanwhile."""
        if result.done() or not result.set_running_or_notify_cancel():
            return
        if isinstance(outcome, Exception):
            result.set_exception(outcome)
        else:
            result.set_result(outcome)

    def _keep(self, address: Address, picture: npt.NDArray[np.uint8]) -> Encoded:
        encoded = encode(picture, longest=THUMBNAIL)
        self._cache.put(address, encoded)
        return encoded

    def _drop(self, page: _Page) -> None:
        for result in page.results.values():
            result.cancel()
        for address in page.addresses:
            self._results.pop(address, None)


def encode(picture: npt.NDArray[np.uint8], *, longest: int) -> Encoded:
    """Encode a picture uint8 (height, width, 3) in at most ``longest`` pixels a side."""
    return Encoded(*picture_file(picture, longest=longest))
