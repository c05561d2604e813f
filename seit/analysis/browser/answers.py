"""Answers that all pages share: HTML, pictures, and one sentence for an error."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from seit.analysis.browser.pages import render
from seit.analysis.browser.pictures import Encoded, ScrolledPastError
from seit.analysis.browser.site import Site
from seit.errors import ChangedError, DamagedError, UsageError

_STATUS = ((ScrolledPastError, 503), (ChangedError, 409), (DamagedError, 500), (UsageError, 400))
_FRESH = {"Cache-Control": "no-store"}
_LASTING = {"Cache-Control": "private, max-age=86400, immutable"}
"""For what an address with the store's seal names."""


def html(site: Site, template: str, values: Mapping[str, Any], status: int = 200) -> Response:
    """Return a rendered page or part of one."""
    shared = {
        "site": site,
        "seal": site.seal if site.has_store else "",
        "has_store": site.has_store,
        "runs": site.runs,
    }
    return Response(
        render(template, {**shared, **values}), status, _FRESH, "text/html; charset=utf-8"
    )


def picture_response(picture: Encoded, *, is_kept: bool = True) -> Response:
    """Return a picture, which the browser may keep if its address names the store's seal."""
    headers = _LASTING if is_kept else _FRESH
    return Response(picture.data, 200, headers, f"image/{picture.kind}")


def data_response(data: bytes, media_type: str) -> Response:
    """Return other bytes, which the browser may keep."""
    return Response(data, 200, _LASTING, media_type)


def explain(site: Site, request: Request, error: Exception) -> Response:
    """Return an error as one sentence: a page, or a line where a page would not be seen."""
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    sentence = " ".join(str(error).split())
    if "text/html" not in request.headers.get("accept", ""):
        return Response(f"{sentence}\n", status, _FRESH, "text/plain; charset=utf-8")
    changed = isinstance(error, ChangedError)
    return html(site, "sentence.html.j2", {"sentence": sentence, "changed": changed}, status)


def row_of(site: Site, request: Request) -> tuple[str, int]:
    """Return the split and row that an address names.

    Raises:
        UsageError: there is no such sample.
    """
    split = site.split_named(request.path_params["split"])
    total = len(site.store[split])
    row = number_of(request.path_params["row"], total)
    if row is None:
        raise UsageError(f"split {split} has samples 0 to {total - 1:,}; there is no other")
    return split, row


def number_of(text: str, total: int) -> int | None:
    """Return a number from 0 to ``total`` − 1 that a text names; None if it names none."""
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        return None
    number = int(text)
    return number if number < total else None
