"""State of a server: the store and runs that its pages show, opened once."""

import re
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from seit.analysis.browser.catalog import Catalog
from seit.analysis.browser.cells import read_cells
from seit.analysis.browser.neighbors import CodeSearch
from seit.analysis.browser.pictures import Address, Painter, PictureCache, Thumbnails
from seit.analysis.browser.query import Query
from seit.analysis.browser.selection import Selection
from seit.errors import DamagedError, UsageError
from seit.modality import Modality
from seit.shards import Store

if TYPE_CHECKING:
    from seit.analysis.browser.shown_runs import ShownRun
    from seit.training import Predictions

_VIEW = re.compile(r"#v?[0-9]+\Z")


class Site:
    """Store and runs of a server.

    Args:
        store: the open store; None if only runs are shown.
        runs: runs, in the order of their names.
        place: the path or URL that the user named.
    """

    def __init__(
        self, store: Store | None, runs: Sequence["ShownRun"] = (), *, place: str = ""
    ) -> None:
        self._store = store
        self.runs = tuple(runs)
        self.place = place
        self.cache = PictureCache()
        self._selections: dict[str, Selection] = {}
        self._lock = threading.Lock()
        self.thumbnails = Thumbnails(lambda: self.painter, self._read_tokens, self.cache)

    @property
    def has_store(self) -> bool:
        """True if a store is open."""
        return self._store is not None

    @property
    def store(self) -> Store:
        """The open store.

        Raises:
            UsageError: only runs are shown.
        """
        if self._store is None:
            raise UsageError(
                "no store is open; start `seit view RUN --store STORE` to see its samples"
            )
        return self._store

    @cached_property
    def painter(self) -> Painter:
        """Painter of pictures; loads the tokenizer."""
        return Painter(self.store)

    @cached_property
    def code_search(self) -> CodeSearch:
        """Search for samples with similar codes, which keeps what it has decoded."""
        return CodeSearch(self.store)

    @property
    def modality(self) -> Modality:
        """Modality of the store's samples."""
        return "audio" if self.store.card.tokenizer.modality == "audio" else "image"

    @property
    def is_heard(self) -> bool:
        """True for sounds that can be played, as the tokenizer decodes them."""
        return self.modality == "audio" and self.painter.tokenizer is not None

    @property
    def seal(self) -> str:
        """Beginning of the store's seal, for addresses of pictures."""
        return self.store.card.seal[:12]

    def check_store(self) -> None:
        """Check that the store is the one that was opened.

        Raises:
            ChangedError: another one took its place.
        """
        if self._store is not None:
            self._store.sealed.check()

    def split_named(self, name: str) -> str:
        """Return the name of a split, the first one by default.

        Raises:
            UsageError: there is none of this name.
        """
        store = self.store
        if not name:
            return next(iter(store), "")
        if name not in store:
            raise UsageError(f"there is no split {name[:80]!r}; there are {', '.join(store)}")
        return name

    def selection(self, name: str) -> Selection:
        """Return what finds the samples of a split."""
        name = self.split_named(name)
        with self._lock:
            if name not in self._selections:
                split = self.store[name]
                self._selections[name] = Selection(Catalog(split), self._predictions_of(name))
            return self._selections[name]

    def query_of(self, query: Query) -> Query:
        """Return a query with its split named."""
        return Query(**{**vars(query), "split": self.split_named(query.split)})

    def clip_rows(self, catalog: Catalog, row: int, key: str) -> list[int]:
        """Return the rows of all windows or views of a clip, which follow one another."""
        base = _VIEW.sub("", key)
        if base == key:
            return [row]
        around = range(max(0, row - 64), min(len(catalog), row + 65))
        cells = read_cells(catalog, list(around))
        mine = [cell.row for cell in cells if _VIEW.sub("", cell.key) == base]
        return mine or [row]

    def _read_tokens(self, address: Address) -> npt.NDArray[np.unsignedinteger]:
        name, row = address
        (cell,) = read_cells(self.selection(name).catalog, [row])
        if cell.tokens is None:
            raise DamagedError(cell.damage)
        return cell.tokens

    def _predictions_of(self, split: str) -> "Predictions | None":
        for run in self.runs:
            found: Predictions | None = run.predictions_of(self.store, split)
            if found is not None:
                return found
        return None
