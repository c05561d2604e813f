"""`seit view STORE|RUN`."""

from seit.cli.output import print_lines, print_result, say


def command(
    place: str,
    /,
    *,
    store: str | None = None,
    host: str = "127.0.0.1",
    port: int = 7348,
    no_open: bool = False,
    json: bool = False,
) -> None:
    """Look at a store, a run, or the runs below a folder on a local page, until Ctrl-C.

    Args:
        place: A store's folder or URL, a run's folder, or a folder of runs.
        store: The store that a run was evaluated on, to see the samples behind its figures.
        host: Address to bind; with any but this machine's own, the page's address holds a token.
        port: Port to bind; 0 for a free one.
        no_open: Print the address, and open no browser.
        json: Print one JSON object.
    """
    from seit.api import view

    found = view(place, store=store, host=host, port=port, open_browser=not no_open)
    if json:
        print_result(found)
    else:
        print_lines([found.url])
        say("Ctrl-C ends it")
    found.wait()
