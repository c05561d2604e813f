"""Working ahead of a consumer in threads, in order and within bounds."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

MAX_THREADS = 16
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, most: int = MAX_THREADS
) -> Iterator[_Result]:
    """``map`` by as many threads as there are processors, ``most`` at most; results in order.

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
        pending: deque[Future[_Result]] = deque()
        try:
            for item in remaining:
                pending.append(pool.submit(function, item))
                if len(pending) > num_threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
