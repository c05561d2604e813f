"""The files of one store in its folder, and never those of another that took its place.

Who replaces a store takes its card away first and writes the new one last, or exchanges whole
folders. So if the card is in its place after a read, the bytes that were read are that card's.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from seit.errors import ChangedError, SeitError
from seit.shards.card import CARD_NAME, SEAL_BYTES, Card
from seit.shards.folders import Folder, Stamp, WrappedFolder

_ATTEMPTS = 8
_SETTLED_NS = 2_000_000_000
"""Within this time of a change, file systems may give another file the same stamp."""
_NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_Found = TypeVar("_Found")


class SealedFolder(WrappedFolder):
    """``folder``, read only as long as the store of ``card`` lies there.

    After each read the card is looked at again: on a disk by its stamp, and by its seal where the
    stamp is another or too young to be trusted; behind a URL by its seal, which costs a request.
    Files that others check by their sha256 (``fetched``) are not checked here.

    Raises:
        ChangedError: at a read, when another store or none is there.
    """

    def __init__(self, folder: Folder, card: Card) -> None:
        super().__init__(folder)
        text = card.to_text()
        self._seal = text[-SEAL_BYTES:].encode()
        self._seal_offset = len(text.encode()) - SEAL_BYTES
        self._known: Stamp | None = None
        self._is_settled = False

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """Read ``size`` bytes from ``offset`` on, or all; fewer only where the file ends."""
        return self._seen(lambda: self.folder.read(name, offset, size))

    def reread(self, name: str, offset: int, size: int) -> bytes | None:
        """Read a range again, past any cache, or None where that cannot give other bytes."""
        return self._seen(lambda: self.folder.reread(name, offset, size))

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self._seen(lambda: self.folder.size(name))

    def check(self) -> None:
        """Look whether the store is still there.

        Raises:
            ChangedError: it is not.
        """
        self._seen(lambda: None)

    def _seen(self, look: Callable[[], _Found]) -> _Found:
        """What ``look`` finds while one and the same card is in its place, before and after.

        A store that was taken away and put back meanwhile is looked at once more.
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
        """Whether no other card was in the place since its stamp was ``before``.

        Raises:
            ChangedError: another one is there now, or none.
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
        if self._at_card(lambda: self.folder.reread(*place)) != self._seal:  # bytes may go astray
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
