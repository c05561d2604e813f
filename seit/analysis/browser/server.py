"""The server behind `seit view`: an address, a thread that answers, and its end."""

import socket
import threading
import webbrowser
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from seit.analysis.browser.guard import LOOPBACK, TOKEN, Guard, new_token
from seit.errors import SeitError, UsageError
from seit.extras import check_installed
from seit.outcomes import Outcome

if TYPE_CHECKING:
    from uvicorn import Server

    from seit.analysis.browser.site import Site

HOST = "127.0.0.1"
PORT = 7348
"""Default port; “SEIT” on a telephone."""
_MAX_REQUESTS = 128
_START_SECONDS = 10.0


@dataclass(frozen=True, repr=False)
class View(Outcome):
    """Server that shows a store or runs, until it is closed.

    Attributes:
        url: address of the first page; with a token unless it is bound to this machine alone.
        host: address that it is bound to.
        port: its port.
    """

    recorded: ClassVar[tuple[str, ...]] = ("url", "host", "port")

    url: str
    host: str
    port: int
    _server: "Server" = field(repr=False, compare=False)
    _thread: threading.Thread = field(repr=False, compare=False)

    def wait(self) -> None:
        """Wait until the server is closed; Ctrl-C closes it."""
        try:
            while self._thread.is_alive():
                self._thread.join(timeout=1.0)
        except KeyboardInterrupt:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Stop answering."""
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(timeout=_START_SECONDS)

    def __enter__(self) -> "View":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(site: "Site", *, host: str, port: int, opens: bool) -> View:
    """Start a server in a thread, and return once it answers.

    Args:
        site: what it shows.
        host: address to bind; with any but the loopback ones, requests need a random token.
        port: port to bind, 0 for a free one.
        opens: whether to open the first page in the user's browser.

    Raises:
        UsageError: the packages are not installed, or host or port cannot be used.
    """
    check_installed(("starlette", "uvicorn"), use="pages in a browser", extra="view")
    import uvicorn

    from seit.analysis.browser.application import make_application

    bound = _bind(host, port)
    port = bound.getsockname()[1]
    is_local = host in LOOPBACK
    token = None if is_local else new_token()
    names = [f"{_in_url(name)}:{port}" for name in LOOPBACK] if is_local else []
    app = Guard(make_application(site), hosts=names, token=token)
    config = uvicorn.Config(
        app,
        log_level="critical",
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        limit_concurrency=_MAX_REQUESTS,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [bound]}, daemon=True, name="seit view"
    )
    thread.start()
    _await_start(server, thread)
    address = f"http://{_in_url(_reachable(host))}:{port}/"
    url = address if token is None else f"{address}?{TOKEN}={token}"
    if opens:
        webbrowser.open(url)
    return View(url, host, port, server, thread)


def _bind(host: str, port: int) -> socket.socket:
    if not 0 <= port < 1 << 16:
        raise UsageError(f"--port is {port}; expected 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"--host {host!r} is no address of this machine: {error.strerror}") from (
            error
        )
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        bound.listen(_MAX_REQUESTS)
    except OSError as error:
        bound.close()
        raise UsageError(
            f"port {port} of {host} cannot be used ({error.strerror}); close what uses it, or pass "
            "--port 0 for a free one"
        ) from error
    return bound


def _await_start(server: "Server", thread: threading.Thread) -> None:
    waited = threading.Event()
    for _ in range(int(_START_SECONDS / 0.01)):
        if server.started:
            return
        if not thread.is_alive():
            break
        waited.wait(0.01)
    raise SeitError("the server did not start; pass another --port")


def _reachable(host: str) -> str:
    """Return a host that a browser can open for one that means every address."""
    return socket.gethostname() if host in ("0.0.0.0", "::", "") else host  # noqa: S104


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
