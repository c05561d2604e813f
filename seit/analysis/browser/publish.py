"""Static copy of a store's pages, to publish beside it: thumbnails, class bars, codes and a card.

It is HTML and JPEG sheets alone: no script, no request to another host, and it opens from a folder
as well as from a server. Every name is escaped, and no name becomes a path.

Legend: n samples shown.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seit.analysis.browser.catalog import Rows
from seit.analysis.browser.cells import Cell, read_cells
from seit.analysis.browser.codebook import count_codes, draw_codes
from seit.analysis.browser.pages import render, static_file
from seit.analysis.browser.sheets import Tile, lay_out, shrink
from seit.analysis.browser.site import Site
from seit.errors import UsageError
from seit.files import explained_writes, publish, write_atomically
from seit.outcomes import Outcome
from seit.progress import Count
from seit.shards import Location, Store, as_store
from seit.stores import CARD_PAGE_NAME, describe_store, work_folder, write_dataset_card

THUMBNAILS = 2000
"""Default maximum number of samples shown."""
MAX_THUMBNAILS = 20_000
_MAX_CODES = 4096
"""Most codes shown; the most used ones of a larger codebook."""
_SAMPLES_AT_ONCE = 240
_CODES_AT_ONCE = 256
_STYLES = ("page.css", "browser.css")


@dataclass(frozen=True, repr=False)
class ViewExport(Outcome):
    """Folder with a static page and a dataset card.

    Attributes:
        out: the folder.
        thumbnails: samples shown.
        damaged: samples in damaged blocks, which are left out.
        files: number of files.
        bytes: size of all files.
    """

    out: Path
    thumbnails: int
    damaged: int
    files: int
    bytes: int


@dataclass(frozen=True)
class Gallery:
    """Samples of a class, or of no class: name, samples in all, share of the largest, tiles."""

    name: str
    count: int
    share: float
    tiles: Sequence[Tile]


def export_view(
    store: Store | Location,
    *,
    out: str | Path,
    thumbnails: int = THUMBNAILS,
    license_id: str = "",
    progress: Count | None = None,
) -> ViewExport:
    """Write a static page of a store and its dataset card to a new folder.

    Args:
        store: an open store, or its path or URL.
        out: new or empty folder.
        thumbnails: most samples shown, spread evenly over each class, 1–20,000.
        license_id: identifier of a license for the card, such as ``cc0-1.0``.
        progress: called with the samples drawn and their total.

    Raises:
        UsageError: there is no store, or ``out`` is not empty, or a setting is invalid.
        DamagedError: the store's card or codebook is damaged.
    """
    if not 1 <= thumbnails <= MAX_THUMBNAILS:
        raise UsageError(f"thumbnails is {thumbnails}; expected 1 to {MAX_THUMBNAILS:,}")
    store = as_store(store)
    target = Path(out).absolute()
    card = write_dataset_card(store, license_id=license_id)
    with work_folder(target) as work, explained_writes(target):
        folder = _Folder(work)
        folder.write(CARD_PAGE_NAME, card.encode())
        for name in _STYLES:
            folder.write(name, static_file(name).encode())
        site = Site(store, place=str(store.folder))
        shown, damaged = _write_samples(site, folder, thumbnails, progress)
        _write_codes(site, folder)
        publish(work, target.resolve())
    return ViewExport(Path(out), shown, damaged, folder.files, folder.bytes)


class _Folder:
    """The folder being written, and what is in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = 0
        self.bytes = 0

    def write(self, name: str, data: bytes) -> None:
        write_atomically(self.path / name, data)
        self.files += 1
        self.bytes += len(data)


def _write_samples(
    site: Site, folder: _Folder, most: int, progress: Count | None
) -> tuple[int, int]:
    """Write the first page; return the samples on it, and those in blocks found damaged."""
    chosen, counts = _choose(site, most)
    wanted = list(dict.fromkeys(place for places in chosen.values() for place in places))
    cells = _cells_of(site, wanted)
    tiles: dict[tuple[str, int], Tile] = {}
    for number, batch in enumerate(cells):
        intact = [(split, cell) for split, cell in batch if cell.tokens is not None]
        if not intact:
            continue
        tokens = np.stack([cell.tokens for _, cell in intact if cell.tokens is not None])
        pictures = site.painter.draw(tokens, quick=True)
        name = f"samples-{number:03}.jpg"
        sheet, placed = lay_out(shrink(pictures), name, [cell.key for _, cell in intact])
        folder.write(name, sheet)
        places = [(split, cell.row) for split, cell in intact]
        tiles |= dict(zip(places, placed, strict=True))
        if progress is not None:
            progress(len(tiles), len(wanted))
    catalogs = [site.catalog(name) for name in site.store]
    largest = max(counts.values(), default=1)
    galleries = [
        Gallery(
            _name_of(site, label),
            counts[label],
            counts[label] / largest,
            [tiles[place] for place in places if place in tiles],
        )
        for label, places in chosen.items()
    ]
    values = {
        "galleries": galleries,
        "damage": [reason for one in catalogs for _, reason in sorted(one.damage.items())],
        "shown": len(tiles),
        "has_several": any(catalog.label_sets is not None for catalog in catalogs),
        "info": describe_store(site.store),
        "is_audio": site.modality == "audio",
        "remark": site.painter.remark,
        "name": Path(site.place.rstrip("/\\")).name,
    }
    folder.write("index.html", render("static_samples.html.j2", values).encode())
    return len(tiles), sum(catalog.damaged_samples for catalog in catalogs)


def _choose(site: Site, most: int) -> tuple[dict[int, list[tuple[str, int]]], dict[int, int]]:
    """Return places of samples by label, evenly spaced in each class, and all classes' counts.

    Classes come with the largest first; −1 stands for none. The least that a class gets is one. A
    sample of several labels has a place in each.
    """
    catalogs = {name: site.catalog(name) for name in site.store}
    known = len(site.store.classes)
    totals = np.sum([one.class_counts for one in catalogs.values()], axis=0)
    sizes = {label: int(totals[label]) for label in (-1, *range(known)) if totals[label]}
    counts = dict(sorted(sizes.items(), key=lambda item: -item[1]))
    share = max(1, most // max(len(counts), 1))
    chosen: dict[int, list[tuple[str, int]]] = {}
    for label in list(counts)[:most]:
        rows = {name: catalog.rows_of(label) for name, catalog in catalogs.items()}
        chosen[label] = _spread(rows, share)
    return chosen, counts


def _spread(rows: Mapping[str, Rows], most: int) -> list[tuple[str, int]]:
    """Return split and row of up to ``most`` rows, evenly spaced over those of all splits."""
    splits, ends = list(rows), np.cumsum([len(one) for one in rows.values()])
    total = int(ends[-1])
    places = []
    for number in np.linspace(0, total - 1, min(most, total)).round().astype(int).tolist():
        place = int(np.searchsorted(ends, number, side="right"))
        own = rows[splits[place]]
        places.append((splits[place], int(own[number - int(ends[place]) + len(own)])))
    return places


def _cells_of(site: Site, places: Sequence[tuple[str, int]]) -> Iterator[list[tuple[str, Cell]]]:
    """Yield samples a sheet at a time."""
    for start in range(0, len(places), _SAMPLES_AT_ONCE):
        some = places[start : start + _SAMPLES_AT_ONCE]
        by_split: dict[str, list[int]] = {}
        for split, row in some:
            by_split.setdefault(split, []).append(row)
        yield [
            (split, cell)
            for split, rows in by_split.items()
            for cell in read_cells(site.catalog(split), rows)
        ]


def _name_of(site: Site, label: int) -> str:
    if label >= 0:
        return site.store.classes[label]
    return "no class" if site.store.classes else "all samples"


def _write_codes(site: Site, folder: _Folder) -> None:
    usage = count_codes(site)
    levels = []
    for level in range(site.store.levels):
        order = np.argsort(-usage.counts[level], kind="stable")[:_MAX_CODES]
        name = f"codes-{level}.jpg"
        captions = [f"code {code}" for code in order.tolist()]
        pictures = [
            shrink(draw_codes(site, level, order[start : start + _CODES_AT_ONCE]))
            for start in range(0, len(order), _CODES_AT_ONCE)
        ]
        sheet, tiles = lay_out(np.concatenate(pictures), name, captions)
        folder.write(name, sheet)
        counts = usage.counts[level]
        levels.append(
            {
                "number": level,
                "used": int((counts > 0).sum()),
                "entropy": usage.entropy(level),
                "codes": [
                    (code, int(counts[code]), tile)
                    for code, tile in zip(order.tolist(), tiles, strict=True)
                ],
            }
        )
    values = {
        "levels": levels,
        "num_codes": site.store.card.layout.num_codes,
        "usage": usage,
        "remark": site.painter.remark,
        "name": Path(site.place.rstrip("/\\")).name,
    }
    folder.write("codebook.html", render("static_codebook.html.j2", values).encode())
