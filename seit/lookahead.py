"""Bounded prefetching in threads, in order."""

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
    """Yield the results of submitted items in order, with some submitted ahead.

    An error is raised in its turn. Pending work is canceled when the consumer stops.

    Args:
        submit: starts the work of an item.
        items: items to work on.
        held: number of futures that may wait once this item is submitted.
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
    """Map by one thread per processor, at most ``most``; yields results in order.

    The first item is computed alone, so that threads find cached values, and a consumer of one
    result pays for no more. After that, one item per thread is running, and one waits. An error
    is raised in its turn; a consumer that stops waits for running items.
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
    """Yield ``values`` while a thread computes the next one on one core.

    Its errors are raised here, in their turn. Closing the generator waits for the thread, so that
    the sources of ``values`` are no longer in use.
    """
    end = object()
    with ThreadPoolExecutor(1, initializer=_compute_on_one_core) as pool:
        coming: Future[Any] = pool.submit(next, values, end)
        while (value := coming.result()) is not end:
            coming = pool.submit(next, values, end)
            yield value


def _compute_on_one_core() -> None:
    """Leave the other cores to the network; the setting is per thread."""
    import torch

    torch.set_num_threads(1)
