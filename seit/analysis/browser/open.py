"""Opening of what `seit view` shows: a store, a run, or a folder of runs."""

from pathlib import Path

from seit.analysis.browser.server import HOST, PORT, View, serve
from seit.analysis.browser.shown_runs import ShownRun
from seit.analysis.browser.site import Site
from seit.analysis.runs.find import list_runs
from seit.errors import UsageError
from seit.shards import CARD_NAME, Location, Store, as_store, is_url
from seit.training import Run

MAX_RUNS = 1000
"""Most runs of a folder that are shown."""


def view_place(
    place: Store | Location,
    *,
    store: Store | Location | None = None,
    host: str = HOST,
    port: int = PORT,
    opens: bool = True,
) -> View:
    """Start a server that shows a store, a run, or the runs below a folder.

    Args:
        place: what to show.
        store: store whose samples a run's mistakes are, opened along with it.
        host: address to bind.
        port: port to bind, 0 for a free one.
        opens: whether to open the user's browser.

    Raises:
        UsageError: there is nothing to show, the packages are not installed, or host or port
            cannot be used.
        DamagedError: the card of the store is damaged.
    """
    return serve(open_site(place, store=store), host=host, port=port, opens=opens)


def open_site(place: Store | Location, *, store: Store | Location | None = None) -> Site:
    """Open what is to be shown.

    Raises:
        UsageError: there is nothing to show.
        DamagedError: the card of the store is damaged.
    """
    is_path = isinstance(place, str | Path) and not is_url(str(place))
    runs = _find_runs(Path(str(place))) if is_path else []
    if not runs:
        if store is not None:
            raise UsageError(f"--store goes with a run; {place} is none")
        return Site(_opened(place), place=_name_of(place))
    shown = None if store is None else _opened(store)
    return Site(shown, runs, place=_name_of(place if store is None else store))


def _opened(place: Store | Location) -> Store:
    store = as_store(place)
    if not store.card.samples:
        raise UsageError(f"{store.folder} holds no samples; there is nothing to show")
    return store


def _name_of(place: Store | Location) -> str:
    return str(place.folder if isinstance(place, Store) else place)


def _find_runs(path: Path) -> list[ShownRun]:
    """Return the run at a path, or those below it; none for a store or nothing."""
    if Run.exists(path):
        return [ShownRun(path.resolve().name, path)]
    if not path.is_dir() or (path / CARD_NAME).exists():
        return []
    return [ShownRun(one.name, path / one.name) for one in list_runs(path)[:MAX_RUNS]]
