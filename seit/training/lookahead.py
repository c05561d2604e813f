"""Reading ahead: the next batch is made while the network works on this one."""

import threading
from collections.abc import Generator, Iterator
from queue import Full, Queue
from typing import TypeVar

import torch

T = TypeVar("T")
_PATIENCE = 0.2
"""Seconds between looks at whether anybody still wants a batch."""


def read_ahead(values: Iterator[T]) -> Generator[T]:
    """Yield ``values``, the next one made by a thread meanwhile, on one core.

    What it raises is raised here, in its place. Closing the generator ends the thread before it
    returns, so that what ``values`` reads is free again.
    """
    made: Queue[tuple[T | None, BaseException | None]] = Queue(maxsize=1)
    stop = threading.Event()
    thread = threading.Thread(target=_make, args=(values, made, stop), daemon=True)
    thread.start()
    try:
        while True:
            value, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield value  # type: ignore[misc] # without an error there is a value
    finally:
        stop.set()
        thread.join()


def _make(
    values: Iterator[T], made: "Queue[tuple[T | None, BaseException | None]]", stop: threading.Event
) -> None:
    # Of this thread: others that compute beside it would take cores from the network.
    torch.set_num_threads(1)
    while not stop.is_set():
        try:
            entry: tuple[T | None, BaseException | None] = (next(values), None)
        except BaseException as error:
            entry = (None, error)
        while not stop.is_set():
            try:
                made.put(entry, timeout=_PATIENCE)
                break
            except Full:
                continue
        if entry[1] is not None:
            return
