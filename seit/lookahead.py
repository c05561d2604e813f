"""Working ahead of a consumer in threads, in order and within bounds."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

MAX_THREADS = 16
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def results_ahead(
    submit: Callable[[_Item], "Future[_Result]"],
    items: Iterable[_Item],
    *,
    held: Callable[[_Item], int],
) -> Generator[_Result]:
    """Yield the results of submitted items in order, some submitted ahead of the one yielded.

    An error is raised in its turn. What waits is cancelled when the consumer stops.

    Args:
        submit: starts the work of an item.
        items: what to work on.
        held: how many futures may wait once this item was submitted.
    """
    pending: deque[Future[_Result]] = deque()
    try:
        for item in items:
            pending.append(submit(item))
            if len(pending) > held(item):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def map_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, most: int = MAX_THREADS
) -> Iterator[_Result]:
    """``map`` with a thread for each processor, ``most`` at most; results come in order.

    The first item is done alone, so that what is made once and kept is there before threads ask
    for it, and that a consumer of one result pays for no more. Then one item a thread is under
    way, and one waits. An error is raised in its turn; a consumer that stops waits for what is
    under way.
    """
    remaining = iter(items)
    for item in islice(remaining, 1):
        yield function(item)
    num_threads = min(os.cpu_count() or 1, MAX_THREADS, most)
    if num_threads < 2:
        yield from map(function, remaining)
        return
    with ThreadPoolExecutor(num_threads) as pool:
        yield from results_ahead(
            lambda item: pool.submit(function, item), remaining, held=lambda _: num_threads
        )


def read_ahead(values: Iterator[_Item]) -> Generator[_Item]:
    """Yield ``values``, the next one made meanwhile by a thread on one core.

    What it raises is raised here, in its place. Closing the generator waits for the thread, so
    that what ``values`` reads is free again.
    """
    end = object()
    with ThreadPoolExecutor(1, initializer=_compute_on_one_core) as pool:
        coming: Future[Any] = pool.submit(next, values, end)
        while (value := coming.result()) is not end:
            coming = pool.submit(next, values, end)
            yield value


def _compute_on_one_core() -> None:
    """Leave the other cores to the network; the setting is that of the thread."""
    import torch

    torch.set_num_threads(1)
