"""Guard before every page: who may ask, what may be asked, and what a page may do.

The server is for the user of this machine. A page of another site must not reach it, neither
directly (no CORS, same-origin resources only) nor by a name that it points here (DNS rebinding:
only this server's own names are accepted as `Host`). Bound to more than the loopback interface, it
asks for a random token, which the first address sets as a cookie.
"""

import hmac
import logging
import secrets
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from seit.printable import printable

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Hosts of this machine alone."""
TOKEN = "token"  # noqa: S105  the name of a parameter
COOKIE = "seit_view"
_TOKEN_BYTES = 24
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "style-src-attr 'unsafe-inline'",  # charts place their labels by style attributes
        "img-src 'self'",
        "media-src 'self'",
        "connect-src 'self'",
        "frame-src 'self'",  # reports of runs, which may run no script
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
_log = logging.getLogger(__name__)


def new_token() -> str:
    """Return a random token for one server."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


class Guard:
    """ASGI application that checks every request before it passes it on.

    Args:
        app: the pages.
        hosts: accepted values of `Host`, in lower case; empty for any, which needs a token.
        token: token that requests must show; None for none.
    """

    def __init__(self, app: "ASGIApp", *, hosts: Sequence[str], token: str | None) -> None:
        assert hosts or token, "without a token, only known hosts are safe"
        self._app = app
        self._hosts = frozenset(hosts)
        self._token = token

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request, or refuse it in one line."""
        if scope["type"] != "http":
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _send(send, *refusal)
            return
        if self._token is not None and not self._has_cookie(headers):
            if not self._has_parameter(scope):
                await _send(send, 403, "open the address that `seit view` printed, with its token")
                return
            cookie = f"{COOKIE}={self._token}; Path=/; HttpOnly; SameSite=Strict"
            place = _plain(scope)
            await _send(send, 303, "", (("Location", place), ("Set-Cookie", cookie)))
            return
        await self._answer(scope, receive, send)

    async def _answer(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        started = False

        async def with_headers(message: "Message") -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.encode(), value.encode())
                        for name, value in HEADERS.items()
                        if name.lower().encode() not in given
                    ),
                ]
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except Exception as error:
            path = printable(scope["path"])
            _log.warning("the page %s failed: %s: %s", path, type(error).__name__, error)
            if not started:
                await _send(send, 500, "this page failed; the terminal says why")

    def _refusal(self, scope: "Scope", headers: dict[str, str]) -> tuple[int, str] | None:
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "this server only shows; it takes GET and HEAD"
        if self._hosts and headers.get("host", "").lower() not in self._hosts:
            return 421, "this server answers only to its own address; open the one it printed"
        is_foreign = headers.get("sec-fetch-site") == "cross-site"
        if is_foreign and headers.get("sec-fetch-mode", "navigate") != "navigate":
            return 403, "pages of other sites may not read from this server"
        return None

    def _has_cookie(self, headers: dict[str, str]) -> bool:
        assert self._token is not None
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return found is not None and _same(found.value, self._token)

    def _has_parameter(self, scope: "Scope") -> bool:
        assert self._token is not None
        query = scope["query_string"].decode("latin-1")
        try:
            values = parse_qs(query, max_num_fields=64).get(TOKEN, [])
        except ValueError:
            return False
        return any(_same(value, self._token) for value in values)


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _plain(scope: "Scope") -> str:
    """Return the path of a request on this server, without its query."""
    raw: bytes = scope.get("raw_path") or b"/"
    path = raw.decode("latin-1").split("?")[0].lstrip("/\\")
    return f"/{path}" if path.isascii() and path.isprintable() else "/"


async def _send(
    send: "Send", status: int, line: str, headers: Sequence[tuple[str, str]] = ()
) -> None:
    body = f"{line}\n".encode() if line else b""
    sent = {"Content-Type": "text/plain; charset=utf-8", **HEADERS}
    pairs = [*sent.items(), *headers, ("Content-Length", str(len(body)))]
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
        }
    )
    await send({"type": "http.response.body", "body": body})
