"""`seit view STORE|RUN`."""

from pathlib import Path
from typing import TYPE_CHECKING

from seit.cli.integers import Integer
from seit.cli.output import counting_bar, print_lines, print_result, say
from seit.numbers import counted, human_bytes

if TYPE_CHECKING:
    from seit.analysis import ViewExport


def command(
    place: str,
    /,
    *,
    store: str | None = None,
    host: str | None = None,
    port: Integer | None = None,
    no_open: bool = False,
    export: Path | None = None,
    thumbnails: Integer | None = None,
    license: str = "",  # noqa: A002  the name of the flag
    json: bool = False,
) -> None:
    """Look at a store, a run, or the runs below a folder on a local page, until Ctrl-C.

    Args:
        place: A store's folder or URL, a run's folder, or a folder of runs.
        store: The store that a run was evaluated on, to see the samples behind its figures.
        host: Address to bind, 127.0.0.1 by default; with any but this machine's own, the page's
            address holds a token.
        port: Port to bind, 7348 by default; 0 for a free one.
        no_open: Print the address, and open no browser.
        export: A new folder for a static page of STORE and a dataset card, instead of a server.
        thumbnails: Most samples on the static page; 2,000 by default.
        license: License on the dataset card, such as cc0-1.0; the card asks for one without it.
        json: Print one JSON object.
    """
    from seit.api import view

    if export is not None:
        with counting_bar("drawing") as progress:
            written = view(
                place,
                store=store,
                host=host,
                port=port,
                export=export,
                thumbnails=thumbnails,
                license_id=license,
                progress=progress,
            )
        print_result(written) if json else print_lines(_say_written(written))
        return
    found = view(
        place,
        store=store,
        host=host,
        port=port,
        open_browser=not no_open,
        thumbnails=thumbnails,
        license_id=license,
    )
    if json:
        print_result(found)
    else:
        print_lines([found.url])
        say("Ctrl-C ends it")
    found.wait()


def _say_written(written: "ViewExport") -> list[str]:
    lines = [
        f"page       {written.out / 'index.html'}",
        f"samples    {written.thumbnails:,} shown",
        f"size       {human_bytes(written.bytes)} in {counted(written.files, 'file')}",
    ]
    if written.damaged:
        lines.append(f"damaged    {counted(written.damaged, 'sample')} left out; the page says why")
    return lines
