"""Pages of the codebook: every code decoded, its use, and its neighbors.

Legend: L levels, K codes, C codebook dim.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from seit.analysis.browser.answers import html, number_of, picture_response
from seit.analysis.browser.catalog import Catalog
from seit.analysis.browser.pictures import Encoded, encode
from seit.analysis.browser.site import Site
from seit.errors import DamagedError, UsageError
from seit.shards import Kind

PAGE = 256
"""Codes of a page."""
MAX_COUNTED = 1 << 26
"""Most tokens counted; of more, blocks evenly spaced over all splits are."""
_SIDE = 4
_CODE_SIDE = 48
_NEIGHBORS = 12
_MAX_TABLE = 1 << 24


@dataclass(frozen=True)
class Usage:
    """Use of codes in a store.

    Attributes:
        counts: int64 (L, K), occurrences of each code.
        by_class: int64 (classes, K), occurrences in the samples of a class, over all levels; None
            if the table would be too large.
        samples: samples counted.
        total: samples of the store.
    """

    counts: npt.NDArray[np.int64]
    by_class: npt.NDArray[np.int64] | None
    samples: int
    total: int

    def entropy(self, level: int) -> float:
        """Return the entropy of the codes of a level, in bits per token."""
        counts = self.counts[level]
        shares = counts[counts > 0] / max(int(counts.sum()), 1)
        return float(-(shares * np.log2(shares)).sum()) if len(shares) else 0.0

    def lift(self, label: int) -> npt.NDArray[np.float64]:
        """Return how many times more often codes occur in a class than in all: float64 (K,)."""
        assert self.by_class is not None
        own, all_codes = self.by_class[label], self.counts.sum(axis=0)
        expected = all_codes * (own.sum() / max(int(all_codes.sum()), 1))
        lifts: npt.NDArray[np.float64] = (own + 1) / (expected + 1)
        return lifts


class CodePages:
    """Pages of the codebook of a store."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._lock = threading.Lock()

    def routes(self) -> list[Route]:
        """Return the addresses of these pages."""
        return [Route("/codebook", self.codebook), Route("/code/{level}/{code}", self.code)]

    @cached_property
    def usage(self) -> Usage:
        """Use of the codes, counted on first use."""
        with self._lock:
            return count_codes(self.site)

    def codebook(self, request: Request) -> Response:
        """Answer with the codes, in the order asked for, and one of them in detail."""
        site, values = self.site, request.query_params
        site.check_store()
        codes_LKC = site.store.codebook.reshape(-1, *site.store.codebook.shape[-2:])
        levels, num_codes, _ = codes_LKC.shape
        level = self._number(values.get("level", ""), levels, "level") or 0
        start = (self._number(values.get("start", ""), num_codes, "start") or 0) // PAGE * PAGE
        code = self._number(values.get("code", ""), num_codes, "code")
        label = self._number(values.get("class", ""), len(site.store.classes), "class")
        usage = self.usage
        order = np.argsort(-usage.counts[level], kind="stable")
        if label is not None and usage.by_class is not None:
            order = np.argsort(-usage.lift(label), kind="stable")
        elif values.get("sort", "") == "id":
            order = np.arange(num_codes)
        return html(
            site,
            "codebook.html.j2",
            {
                "level": level,
                "levels": levels,
                "num_codes": num_codes,
                "codes": order[start : start + PAGE].tolist(),
                "counts": usage.counts[level].tolist(),
                "used": int((usage.counts[level] > 0).sum()),
                "entropy": usage.entropy(level),
                "usage": usage,
                "code": code,
                "near": [] if code is None else nearest(codes_LKC[level], code),
                "by_class": [] if code is None else self._classes_of(code),
                "label": label,
                "classes": site.store.classes if usage.by_class is not None else (),
                "sort": values.get("sort", ""),
                "start": start,
                "page": PAGE,
                "remark": site.painter.remark,
            },
        )

    def code(self, request: Request) -> Response:
        """Answer with the picture of a code."""
        level = number_of(request.path_params["level"], self.site.store.levels)
        code = number_of(request.path_params["code"], self.site.store.card.layout.num_codes)
        if level is None or code is None:
            raise UsageError("the codebook has no such code")
        return picture_response(self._picture(level, code))

    def _picture(self, level: int, code: int) -> Encoded:
        """Return the picture of a code, decoding its neighbors by number along with it."""
        key = ("code", level, code)
        with self._lock:
            found = self.site.cache.get(key)
            if found is not None:
                return found
            start = code // PAGE * PAGE
            codes = np.arange(start, min(start + PAGE, self.site.store.card.layout.num_codes))
            for number, picture in zip(codes.tolist(), self._draw(level, codes), strict=True):
                encoded = encode(picture, longest=_CODE_SIDE)
                self.site.cache.put(("code", level, number), encoded)
                found = encoded if number == code else found
        assert found is not None
        return found

    def _draw(self, level: int, codes: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """Draw codes, each all over a small grid; other levels have the code nearest to zero."""
        site = self.site
        codebook = site.store.codebook.reshape(-1, *site.store.codebook.shape[-2:])
        neutral = np.linalg.norm(codebook, axis=-1).argmin(axis=1)
        layout, levels = site.store.card.layout, len(codebook)
        is_audio = site.modality == "audio"
        side = layout.grid[0] // levels if is_audio else _SIDE
        width = min(layout.grid[1], side if is_audio else _SIDE)
        grids = np.empty((len(codes), levels, side, width), dtype=layout.dtype)
        grids[:] = neutral[None, :, None, None]
        grids[:, level] = codes[:, None, None]
        pictures = site.painter.draw(grids.reshape(len(codes), levels * side, width))
        if is_audio or site.painter.remark:
            return pictures
        # The middle of the picture, away from what a decoder does at its edges.
        rows, columns = pictures.shape[1] // 4, pictures.shape[2] // 4
        return np.ascontiguousarray(pictures[:, rows:-rows, columns:-columns])

    def _classes_of(self, code: int) -> list[tuple[str, int, float]]:
        """Return the classes in which a code is most frequent: name, count, lift."""
        usage = self.usage
        if usage.by_class is None:
            return []
        rows = [
            (name, int(usage.by_class[label, code]), float(usage.lift(label)[code]))
            for label, name in enumerate(self.site.store.classes)
            if usage.by_class[label, code]
        ]
        return sorted(rows, key=lambda row: -row[2])[:_NEIGHBORS]

    def _number(self, text: str, total: int, name: str) -> int | None:
        if not text:
            return None
        number = number_of(text, total)
        if number is None:
            raise UsageError(f"{name} is {text[:40]!r}; expected 0 to {total - 1:,}")
        return number


def nearest(codes_KC: npt.NDArray[np.float32], code: int) -> list[tuple[int, float]]:
    """Return the codes nearest to one by Euclidean distance, and their distances."""
    distances = np.linalg.norm(codes_KC - codes_KC[code], axis=1)
    distances[code] = np.inf
    order = np.argsort(distances, kind="stable")[: min(_NEIGHBORS, len(codes_KC) - 1)]
    return [(int(one), float(distances[one])) for one in order]


def count_codes(site: Site) -> Usage:
    """Count the codes of a store, or of evenly spaced blocks of a large one."""
    store, layout = site.store, site.store.card.layout
    levels, num_codes = store.levels, layout.num_codes
    counts = np.zeros((levels, num_codes), dtype=np.int64)
    is_small = 0 < len(store.classes) * num_codes <= _MAX_TABLE
    by_class = np.zeros((len(store.classes), num_codes), np.int64) if is_small else None
    stride = max(1, -(-store.card.samples * layout.length // MAX_COUNTED))
    samples = 0
    for name in store:
        catalog = site.selection(name).catalog
        for tokens, labels in _counted(catalog, stride):
            samples += len(tokens)
            for level, part in enumerate(np.split(tokens, levels, axis=1)):
                counts[level] += np.bincount(part.reshape(-1), minlength=num_codes)
            if by_class is not None:
                known = labels >= 0
                cells = labels[known, None].astype(np.int64) * num_codes + tokens[known].reshape(
                    int(known.sum()), -1
                )
                by_class += np.bincount(cells.reshape(-1), minlength=by_class.size).reshape(
                    by_class.shape
                )
    return Usage(counts, by_class, samples, store.card.samples)


def _counted(
    catalog: Catalog, stride: int
) -> Iterator[tuple[npt.NDArray[np.unsignedinteger], npt.NDArray[np.int32]]]:
    """Yield ids (N, H, W) and labels (N,) of every ``stride``-th intact block."""
    labels = catalog.labels
    for number, (shard, block) in enumerate(catalog.split.blocks()):
        if number % stride:
            continue
        try:
            tokens = shard.open_block(block, Kind.TOKENS)
        except DamagedError as error:
            catalog.damage[number] = str(error)
            continue
        rows = shard.rows_of(block)
        yield tokens, labels[rows.start : rows.stop]
