"""Retries: which failures of a remote place are transient, how long to wait, when to give up."""

import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from seit.errors import SeitError

_T = TypeVar("_T")
_PASSING_STATUS = (408, 425, 429)
_OUR_MISTAKES = (TypeError, AttributeError, NameError, LookupError, NotImplementedError)
_MAX_CAUSE_LENGTH = 300
_NOTICE_SECONDS = 10.0
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetryPolicy:
    """Limits of retries.

    Attributes:
        attempts: most attempts.
        first_wait_seconds: mean wait after the first failure; doubles each time.
        longest_wait_seconds: longest wait.
        attempt_seconds: time limit of an attempt; reads and writes get one more second per 128 KiB.
        total_seconds: latest start of an attempt, counted from the first.
    """

    attempts: int = 8
    first_wait_seconds: float = 0.2
    longest_wait_seconds: float = 20.0
    attempt_seconds: float = 30.0
    total_seconds: float = 300.0

    def call(self, action: Callable[[], _T], *, what: str) -> _T:
        """Call ``action`` until it succeeds.

        Raises:
            FileNotFoundError: the place reports that the file does not exist.
            PermissionError: the place denies access.
            SeitError: it failed permanently, or more often than the policy allows.
        """
        started = time.monotonic()
        for attempt in range(1, self.attempts + 1):
            try:
                return action()
            except Exception as error:
                _raise_if_final(error, what)
                cause = describe(_without_guess(error))
            wait = min(self.longest_wait_seconds, self.first_wait_seconds * 2 ** (attempt - 1))
            wait *= random.uniform(0.5, 1.5)  # noqa: S311
            if attempt == self.attempts or time.monotonic() + wait > started + self.total_seconds:
                break
            if attempt == 1:
                _NOTICES.say(what, cause, attempts=self.attempts)
            time.sleep(wait)
        raise SeitError(
            f"{what} failed {attempt} times in {time.monotonic() - started:.0f} s, the last time "
            f"with {cause}; check the address and the connection, then run the same command again"
        )


class _Notices:
    """Log of first retries, at most one in a while, as requests fail together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0.0

    def say(self, what: str, cause: str, *, attempts: int) -> None:
        """Log that a request failed and is repeated."""
        now = time.monotonic()
        with self._lock:
            if now < self._next:
                return
            self._next = now + _NOTICE_SECONDS
        _LOG.warning("%s failed with %s; trying again, up to %d times", what, cause, attempts - 1)


_NOTICES = _Notices()


def call_within(seconds: float, action: Callable[[], _T]) -> _T:
    """Call ``action`` in its own thread and wait for at most ``seconds``.

    A call that does not end leaves its thread running, which does not keep the process alive.

    Raises:
        TimeoutError: it did not end in time.
    """
    outcome: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            outcome.append((True, action()))
        except BaseException as error:
            outcome.append((False, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    succeeded, value = outcome[0]
    if not succeeded:
        raise value
    result: _T = value
    return result


def http_status(error: BaseException) -> int | None:
    """Return the HTTP status in the error of any client library; None if it has none."""
    for link in _causes(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        elif response is not None:
            status = getattr(response, "status_code", None)
        else:
            status = getattr(link, "status", None)
        if isinstance(status, int):
            return status
    return None


def describe(error: BaseException) -> str:
    """Describe an error in one line, without secrets of its URL."""
    text = " ".join(hide_secrets(str(error)).split())
    name = type(error).__name__
    return f"{name} ({text[:_MAX_CAUSE_LENGTH]})" if text else name


def hide_secrets(text: str) -> str:
    """Remove user names, passwords and queries from every URL in a text."""
    text = re.sub(r"://[^/\s'\"]*@", "://", text)
    return re.sub(r"(\w://[^\s'\"?]*)\?[^\s'\")>]*", r"\1?…", text)


def _raise_if_final(error: Exception, what: str) -> None:
    """Raise the error without the secrets of its URL if no further attempt can succeed."""
    error = _without_guess(error)
    status = http_status(error)
    if isinstance(error, FileNotFoundError) or status == 404:
        raise FileNotFoundError(f"{what}: there is no such file") from None
    if isinstance(error, PermissionError) or status in (401, 403):
        raise PermissionError(f"{what}: access is denied ({describe(error)})") from None
    if isinstance(error, (IsADirectoryError, NotADirectoryError)):
        raise IsADirectoryError(f"{what}: it is not a plain file") from None
    if isinstance(error, SeitError):
        raise error
    refused = status is not None and 400 <= status < 500 and status not in _PASSING_STATUS
    if refused or isinstance(error, _OUR_MISTAKES) or "Credentials" in type(error).__name__:
        raise SeitError(f"{what} failed with {describe(error)}") from None


def _without_guess(error: Exception) -> Exception:
    """Return the cause of an error: some libraries report any failure as a missing file."""
    while isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        if isinstance(error.__cause__, LookupError):
            break
        error = error.__cause__
    return error


def _causes(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    for _ in range(8):
        if link is None:
            return
        yield link
        link = link.__cause__
