"""A run that is asked to stop saves what it has."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether somebody asked.

    Attributes:
        requested: by Ctrl-C or SIGTERM.
    """

    requested = False


@contextmanager
def listen() -> Iterator[Stop]:
    """Note the first SIGINT or SIGTERM instead of dying of it; the second does what it always did.

    Only the main thread can listen; in another nothing is noted.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    # A shell starts background jobs with some signals ignored: they stay so.
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
