"""Pages of the codebook: every code decoded, its use, and its neighbors.

Legend: L levels, K codes, C codebook dim.
"""

import threading
from functools import cached_property

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from seit.analysis.browser.answers import html, number_of, picture_response
from seit.analysis.browser.codebook import Usage, count_codes, draw_codes, nearest
from seit.analysis.browser.pictures import Encoded, encode
from seit.analysis.browser.site import Site
from seit.errors import UsageError

PAGE = 256
"""Codes of a page."""
_CODE_SIDE = 48
_CLASSES = 12
"""Most classes listed for a code."""


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
            order = np.argsort(-usage.lift(label, level), kind="stable")
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
                "by_class": [] if code is None else self._classes_of(code, level),
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
            pictures = draw_codes(self.site, level, codes)
            for number, picture in zip(codes.tolist(), pictures, strict=True):
                encoded = encode(picture, longest=_CODE_SIDE)
                self.site.cache.put(("code", level, number), encoded)
                found = encoded if number == code else found
        assert found is not None
        return found

    def _classes_of(self, code: int, level: int) -> list[tuple[str, int, float]]:
        """Return the classes in which a code is most frequent: name, count, lift."""
        usage = self.usage
        if usage.by_class is None:
            return []
        rows = [
            (name, int(usage.by_class[level, label, code]), float(usage.lift(label, level)[code]))
            for label, name in enumerate(self.site.store.classes)
            if usage.by_class[level, label, code]
        ]
        return sorted(rows, key=lambda row: -row[2])[:_CLASSES]

    def _number(self, text: str, total: int, name: str) -> int | None:
        if not text:
            return None
        number = number_of(text, total)
        if number is None:
            raise UsageError(f"{name} is {text[:40]!r}; expected 0 to {total - 1:,}")
        return number
