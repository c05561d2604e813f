"""Files of one store in its folder, never those of another store that took its place.

Replacing a store removes its card first and writes the new one last, or exchanges whole folders.
So if the card is in its place after a read, the bytes belong to that card.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from seit.errors import ChangedError, SeitError
from seit.shards.card import CARD_NAME, Card
from seit.shards.card_text import SEAL_BYTES, seal_entry
from seit.shards.folders import Folder, Stamp, WrappedFolder

_ATTEMPTS = 8
_SETTLED_NS = 2_000_000_000
"""Within this time of a change, file systems may give another file the same stamp."""
_NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_Found = TypeVar("_Found")


class SealedFolder(WrappedFolder):
    """``folder``, readable only as long as it holds the store of ``card``.

    Each read is followed by a check of the card: on a disk by its stamp, and by its seal if the
    stamp differs or is too recent to be trusted; behind a URL by its seal, which costs a request.
    Files that the caller checks by sha256 (``fetched``) are not checked here.

    Raises:
        ChangedError: on a read, if the folder holds another store or none.
    """

    def __init__(self, folder: Folder, card: Card) -> None:
        super().__init__(folder)
        self._seal = seal_entry(card.seal).encode()
        self._seal_offset = card.num_bytes - SEAL_BYTES
        self._known: Stamp | None = None
        self._is_settled = False

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """Read ``size`` bytes from ``offset``, or all; fewer only at the end of the file."""
        return self._seen(lambda: self.folder.read(name, offset, size))

    def reread(self, name: str, offset: int, size: int) -> bytes | None:
        """Read a range again, bypassing caches; None if that cannot return other bytes."""
        return self._seen(lambda: self.folder.reread(name, offset, size))

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        return self._seen(lambda: self.folder.size(name))

    def check(self) -> None:
        """Check that the store is still there.

        Raises:
            ChangedError: it is not.
        """
        self._seen(lambda: None)

    def _seen(self, look: Callable[[], _Found]) -> _Found:
        """Return the result of ``look`` if the same card is in its place before and after.

        If the store was removed and put back meanwhile, look once more.
        """
        for _ in range(_ATTEMPTS):
            before = self._known or self._stamp()
            failure = None
            try:
                found = look()
            except OSError as error:
                failure = error
            if self._is_there_since(before):
                if failure is not None:
                    raise failure
                return found
        raise self._changed("it is being replaced again and again")

    def _is_there_since(self, before: Stamp | None) -> bool:
        """Return True if no other card was in the place since its stamp was ``before``.

        Raises:
            ChangedError: another card is there now, or none.
        """
        stamp = self._stamp()
        is_same = stamp == before
        if not (is_same and self._is_settled and stamp == self._known):
            self._check_seal()
            self._is_settled = stamp is not None and time.time_ns() - stamp.changed_ns > _SETTLED_NS
            self._known = stamp
        return is_same

    def _stamp(self) -> Stamp | None:
        return self._at_card(lambda: self.folder.stamp(CARD_NAME))

    def _check_seal(self) -> None:
        place = CARD_NAME, self._seal_offset, len(self._seal)
        if self._at_card(lambda: self.folder.read(*place)) == self._seal:
            return
        if self._at_card(lambda: self.folder.reread(*place)) != self._seal:  # retry a corrupt read
            raise self._changed(f"its {CARD_NAME} is another")

    def _at_card(self, look: Callable[[], _Found]) -> _Found:
        try:
            return look()
        except _NO_FILE as error:
            raise self._changed(f"its {CARD_NAME} is gone") from error
        except OSError as error:
            raise SeitError(
                f"{self.locate(CARD_NAME)} cannot be read: {error.strerror or error}"
            ) from error

    def _changed(self, reason: str) -> ChangedError:
        return ChangedError(
            f"the store {self} changed after it was opened ({reason}); open it again"
        )
