"""Pages with a grid of samples: the first of them, those that scrolling asks for, and key lists."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from seit.analysis.browser.answers import html, picture_response, row_of
from seit.analysis.browser.catalog import Rows
from seit.analysis.browser.cells import Cell, read_cells
from seit.analysis.browser.pictures import LARGE, encode
from seit.analysis.browser.query import SORTS, Query
from seit.analysis.browser.selection import Selection, batches
from seit.analysis.browser.site import Site
from seit.errors import DamagedError
from seit.numbers import percent

PAGE = 60
"""Samples of a page, which scrolling asks for at a time."""
_KEYS_AT_ONCE = 4096
_MANY_CLASSES = 200
_KEY_FILE = "keys.txt"


@dataclass(frozen=True)
class ClassBar:
    """Samples of a class: its number, name, count, and share of the largest, 0–1."""

    label: int
    name: str
    count: int
    share: float
    address: str


class BrowsePages:
    """Pages of samples of a store."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def routes(self) -> list[Route]:
        """Return the addresses of these pages."""
        return [
            Route("/browse", self.browse),
            Route("/cells", self.cells),
            Route("/classes", self.classes),
            Route("/keys", self.keys),
            Route("/picture/{split}/{row}", self.picture),
        ]

    def browse(self, request: Request) -> Response:
        """Answer with the grid, its controls and the first samples."""
        site = self.site
        query = Query.of_address(request.query_params)
        if "split" not in request.query_params and site.has_store:
            return RedirectResponse(site.query_of(query).address(), status_code=303)
        site.check_store()
        query = site.query_of(query)
        selection = site.selection(query.split, query.run)
        rows = selection.rows(query)
        values = {
            "query": query,
            "store": site.store,
            "sorts": [
                (name, label)
                for name, label in SORTS.items()
                if name != "wrong" or selection.predicted is not None
            ],
            "total": len(rows),
            "page_size": PAGE,
            "commands": commands(site, query),
            "judge": selection.judge,
            **self._cell_values(selection, query, rows[query.start : query.start + PAGE]),
        }
        return html(site, "browse.html.j2", values)

    def cells(self, request: Request) -> Response:
        """Answer with the samples of one page, for scrolling."""
        query = self.site.query_of(Query.of_address(request.query_params))
        selection = self.site.selection(query.split, query.run)
        rows = selection.rows(query)[query.start : query.start + PAGE]
        return html(self.site, "cells.html.j2", self._cell_values(selection, query, rows))

    def classes(self, request: Request) -> Response:
        """Answer with the classes of a split and their counts, and what is damaged."""
        site = self.site
        query = site.query_of(Query.of_address(request.query_params))
        selection = site.selection(query.split, query.run)
        return html(
            site,
            "classes.html.j2",
            {
                "query": query,
                "bars": class_bars(selection, site.store.classes, query),
                "shown": _MANY_CLASSES,
                "everyone": query.address(label=None, start=0),
                "damage": damage_of(selection),
                "remark": site.painter.remark,
            },
        )

    def keys(self, request: Request) -> Response:
        """Answer with the keys that a query finds, one per line, as a file."""
        query = self.site.query_of(Query.of_address(request.query_params))
        selection = self.site.selection(query.split, query.run)
        rows = selection.rows(query)

        def lines() -> Iterator[bytes]:
            for some in batches(rows, _KEYS_AT_ONCE):
                listed = (one.key for one in read_cells(selection.catalog, np.asarray(some)))
                yield "".join(f"{key}\n" for key in listed if is_listable(key)).encode()

        headers = {"Content-Disposition": f'attachment; filename="{_KEY_FILE}"'}
        return StreamingResponse(lines(), media_type="text/plain; charset=utf-8", headers=headers)

    def picture(self, request: Request) -> Response:
        """Answer with the picture of a sample: small, or large if asked."""
        split, row = row_of(self.site, request)
        if "large" not in request.query_params:
            return picture_response(self.site.thumbnails.picture((split, row)))
        key = ("large", split, row)
        found = self.site.cache.get(key)
        if found is None:
            (cell,) = read_cells(self.site.catalog(split), [row])
            if cell.tokens is None:
                raise DamagedError(cell.damage)
            picture = self.site.painter.draw(cell.tokens[None])[0]
            found = encode(picture, longest=LARGE)
            self.site.cache.put(key, found)
        return picture_response(found)

    def _cell_values(
        self, selection: Selection, query: Query, rows: Rows | range
    ) -> dict[str, object]:
        cells = read_cells(selection.catalog, np.asarray(rows, dtype=np.int64))
        intact = [cell for cell in cells if cell.tokens is not None]
        if intact:
            addresses = [(query.split, cell.row) for cell in intact]
            tokens = np.stack([cell.tokens for cell in intact if cell.tokens is not None])
            self.site.thumbnails.request(addresses, tokens)
        return {
            "split": query.split,
            "cells": cells,
            "notes": [self._note(selection, query, cell) for cell in cells],
            "classes": self.site.store.classes,
            "is_heard": self.site.is_heard,
            "start": query.start,
            "judged_by": "" if query.run is None else f"?run={query.run}",
        }

    def _note(self, selection: Selection, query: Query, cell: Cell) -> str:
        """Return what the order of a list says about a sample."""
        notes = []
        if selection.predicted is not None and selection.wrong[cell.row]:
            name = self.site.store.classes[int(selection.predicted[cell.row])]
            notes.append(f"predicted {name}{_sure(selection, cell.row)}")
        if query.sort == "bits":
            notes.append(f"{selection.catalog.bits[cell.row]:,.0f} bits")
        return ", ".join(notes)


def _sure(selection: Selection, row: int) -> str:
    """Return the probabilities of the predicted class and of the sample's own."""
    found = None if selection.predictions is None else selection.predictions.likeliest
    if found is None:
        return ""
    own = percent(float(found.of_labels[row]), decimals=0)
    return f" ({percent(float(found.probabilities[row, 0]), decimals=0)}; its own class {own})"


def class_bars(selection: Selection, classes: Sequence[str], query: Query) -> list[ClassBar]:
    """Return a bar for each class with samples, the largest first."""
    counts = selection.catalog.class_counts
    largest = max(int(counts.max(initial=0)), 1)
    order = np.argsort(-counts, kind="stable").tolist()
    return [
        ClassBar(
            label if label < len(classes) else -1,
            classes[label] if label < len(classes) else "no class",
            int(counts[label]),
            int(counts[label]) / largest,
            query.address(label=label if label < len(classes) else -1, start=0),
        )
        for label in order
        if counts[label]
    ]


def damage_of(selection: Selection) -> list[str]:
    """Return what is wrong with each damaged block found so far."""
    return [reason for _, reason in sorted(selection.catalog.damage.items())]


def commands(site: Site, query: Query) -> list[str]:
    """Return commands that take a downloaded file of keys."""
    store = shlex.quote(site.place)
    split = shlex.quote(query.split)
    return [
        f"seit filter {store} SELECTED --split {split} --keys {_KEY_FILE}",
        f"seit delete {store} --keys {_KEY_FILE}",
    ]


def is_listable(key: str) -> bool:
    """Return True if a file with one key per line can hold the key."""
    return bool(key) and "\n" not in key and not key.endswith("\r")
