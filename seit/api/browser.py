"""The verb that shows stores and runs in a browser: view."""

from pathlib import Path
from typing import TYPE_CHECKING, overload

from seit.analysis import HOST, PORT, THUMBNAILS, export_view, view_place
from seit.errors import UsageError
from seit.progress import Count
from seit.shards import Location, Store

if TYPE_CHECKING:
    from seit.analysis import View, ViewExport


@overload
def view(
    place: Store | Location,
    *,
    store: Store | Location | None = None,
    host: str | None = None,
    port: int | None = None,
    open_browser: bool = ...,
    export: None = None,
    thumbnails: int | None = None,
    license_id: str = ...,
) -> "View": ...


@overload
def view(
    place: Store | Location,
    *,
    store: Store | Location | None = None,
    host: str | None = None,
    port: int | None = None,
    export: str | Path,
    thumbnails: int | None = None,
    license_id: str = ...,
    progress: Count | None = None,
) -> "ViewExport": ...


def view(
    place: Store | Location,
    *,
    store: Store | Location | None = None,
    host: str | None = None,
    port: int | None = None,
    open_browser: bool = True,
    export: str | Path | None = None,
    thumbnails: int | None = None,
    license_id: str = "",
    progress: Count | None = None,
) -> "View | ViewExport":
    """Look at a store, a run, or the runs below a folder on a local page.

    Nothing is ever changed. The call returns at once, while a thread answers: ``wait()`` waits for
    Ctrl-C and ``close()`` ends it, as does the end of a ``with`` block. With ``export``, a static
    page of a store and a dataset card are written instead, and no server is started.

    Args:
        place: a path or URL of a store, an open store, a run's folder, or a folder of runs.
        store: the store that a run was evaluated on, to see the samples behind its figures.
        host: address to bind, ``127.0.0.1`` by default; with any other than this machine's own,
            the address of the page holds a random token.
        port: port to bind, 7348 by default; 0 for a free one.
        open_browser: open the page in the user's browser.
        export: a new or empty folder for the static page.
        thumbnails: most samples on the static page, 1–20,000; 2,000 by default.
        license_id: license on the dataset card, such as ``cc0-1.0``.
        progress: called with the samples drawn and their total.

    Raises:
        UsageError: there is neither store nor run, packages are missing, the port is in use, the
            folder is not empty, or a setting belongs to the other kind of page.
        DamagedError: the card of the store is damaged.

    Example:
        >>> with seit.view("store", port=0, open_browser=False) as page:
        ...     print(page.url)
    """
    if export is None:
        _refuse(
            {"thumbnails": thumbnails, "license": license_id or None},
            "is for a static page, and needs --export FOLDER",
        )
        return view_place(
            place,
            store=store,
            host=HOST if host is None else host,
            port=PORT if port is None else port,
            opens=open_browser,
        )
    _refuse({"store": store}, "is for runs, and --export takes a store")
    _refuse({"host": host, "port": port}, "is for a server, and --export starts none")
    return export_view(
        place,
        out=export,
        thumbnails=THUMBNAILS if thumbnails is None else thumbnails,
        license_id=license_id,
        progress=progress,
    )


def _refuse(settings: dict[str, object], why: str) -> None:
    for name, value in settings.items():
        if value is not None:
            raise UsageError(f"--{name} {why}; leave it out")
