"""Stop requests by signal, so that a run can save its state."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """State of stop requests.

    Attributes:
        requested: whether Ctrl-C or SIGTERM was received.
    """

    requested = False


@contextmanager
def listen() -> Iterator[Stop]:
    """Record the first SIGINT or SIGTERM; restore the default handling for the second.

    Has no effect outside the main thread.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    # Keep ignoring signals that a shell ignores for background jobs.
    before = {number: now for number, now in before.items() if now is not signal.SIG_IGN}

    def note(_number: int, _frame: FrameType | None) -> None:
        stop.requested = True
        _restore(before)

    for number in before:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        _restore(before)


def _restore(before: "dict[signal.Signals, signal._HANDLER]") -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
