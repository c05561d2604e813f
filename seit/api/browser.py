"""The verb that shows stores and runs in a browser: view."""

from typing import TYPE_CHECKING

from seit.analysis import view_place
from seit.shards import Location, Store

if TYPE_CHECKING:
    from seit.analysis import View


def view(
    place: Store | Location,
    *,
    store: Store | Location | None = None,
    host: str = "127.0.0.1",
    port: int = 7348,
    open_browser: bool = True,
) -> "View":
    """Look at a store, a run, or the runs below a folder on a local page.

    Nothing is ever changed. The call returns at once, while a thread answers: ``wait()`` waits for
    Ctrl-C and ``close()`` ends it, as does the end of a ``with`` block.

    Args:
        place: a path or URL of a store, an open store, a run's folder, or a folder of runs.
        store: the store that a run was evaluated on, to see the samples behind its figures.
        host: address to bind; with any other than this machine's own, the address of the page
            holds a random token.
        port: port to bind; 0 for a free one.
        open_browser: open the page in the user's browser.

    Raises:
        UsageError: there is neither store nor run, packages are missing, or the port is in use.
        DamagedError: the card of the store is damaged.

    Example:
        >>> with seit.view("store", port=0, open_browser=False) as page:
        ...     print(page.url)
    """
    return view_place(place, store=store, host=host, port=port, opens=open_browser)
