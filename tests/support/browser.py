"""A headless Chromium for tests of pages, driven by Playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium_path() -> str:
    """Return the path of an installed Chromium, or skip the test."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium is installed; apt-get install chromium brings it")
    return found


@contextmanager
def open_chromium() -> Iterator[Any]:
    """Start Chromium without a window, and without its sandbox, which root cannot have."""
    from playwright.sync_api import sync_playwright

    path = chromium_path()
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


class Watched:
    """Page of a browser that notes what no page of seit may do.

    Attributes:
        page: Playwright's page.
        errors: errors of scripts, and refusals of the content security policy.
        foreign: addresses of other hosts that were asked for.
        dialogs: texts of dialogs that a script opened.
    """

    def __init__(self, page: Any, origin: str) -> None:
        self.page = page
        self.origin = origin
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self.dialogs: list[str] = []
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda line: line.type == "error" and self.errors.append(line.text))
        page.on("dialog", self._dismiss)
        page.on("request", self._note)

    def open(self, path: str) -> Any:
        """Open a page by its path, and return Playwright's page."""
        self.page.goto(f"{self.origin}{path}")
        return self.page

    def assert_quiet(self) -> None:
        """Check that no script failed or opened a dialog, and that no other host was asked."""
        assert (self.errors, self.dialogs, self.foreign) == ([], [], [])

    def _dismiss(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def _note(self, request: Any) -> None:
        if not request.url.startswith((self.origin, "data:", "blob:")):
            self.foreign.append(request.url)
