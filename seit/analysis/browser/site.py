"""State of a server: the store and runs that its pages show, opened once."""

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
from seit.shards import Store, split_key

if TYPE_CHECKING:
    from seit.analysis.browser.shown_runs import ShownRun


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
        self._catalogs: dict[str, Catalog] = {}
        self._selections: dict[tuple[str, int | None], Selection] = {}
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

    def catalog(self, name: str) -> Catalog:
        """Return the columns of a split."""
        name = self.split_named(name)
        with self._lock:
            if name not in self._catalogs:
                self._catalogs[name] = Catalog(self.store[name])
            return self._catalogs[name]

    def selection(self, name: str, run: int | None = None) -> Selection:
        """Return what finds the samples of a split.

        Args:
            name: name of the split; empty for the first.
            run: number of the run whose predictions are shown; None for the first that has any.

        Raises:
            UsageError: there is no such split or run.
        """
        name, catalog = self.split_named(name), self.catalog(name)
        if run is not None and run >= len(self.runs):
            raise UsageError(f"there are {len(self.runs)} runs, numbered from 0")
        for number in range(len(self.runs)) if run is None else [run]:
            with self._lock:
                if (name, number) in self._selections:
                    return self._selections[name, number]
            found = self.runs[number].predictions_of(self.store, name)
            if found is not None:
                with self._lock:
                    made = Selection(catalog, found, judge=self.runs[number].name)
                    return self._selections.setdefault((name, number), made)
        with self._lock:  # of a run in progress, predictions may come
            return self._selections.setdefault((name, None), Selection(catalog))

    def query_of(self, query: Query) -> Query:
        """Return a query with its split named."""
        return Query(**{**vars(query), "split": self.split_named(query.split)})

    def clip_rows(self, catalog: Catalog, row: int, key: str) -> list[int]:
        """Return the rows of all windows or views of a clip, which follow one another."""
        modality = catalog.split.store.card.tokenizer.modality
        base = split_key(key, modality)[0]
        if base == key:
            return [row]
        around = range(max(0, row - 64), min(len(catalog), row + 65))
        cells = read_cells(catalog, list(around))
        mine = [cell.row for cell in cells if split_key(cell.key, modality)[0] == base]
        return mine or [row]

    def _read_tokens(self, address: Address) -> npt.NDArray[np.unsignedinteger]:
        name, row = address
        (cell,) = read_cells(self.catalog(name), [row])
        if cell.tokens is None:
            raise DamagedError(cell.damage)
        return cell.tokens
