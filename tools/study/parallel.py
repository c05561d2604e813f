"""Run the jobs of a study in processes, each as soon as what it needs is there."""

import multiprocessing
import time
from collections.abc import Callable, Iterable, Set
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any, Protocol, TypeVar


class Named(Protocol):
    """A job with a name of its own."""

    @property
    def name(self) -> str: ...  # noqa: D102


Job = TypeVar("Job", bound=Named)
Result = dict[str, Any]


def run_all(
    jobs: Iterable[Job],
    run: Callable[[Job], Result],
    *,
    workers: int,
    seconds: float,
    needs: Callable[[Job], Set[str]] = lambda _: frozenset(),
    shown: Callable[[Result], object] = lambda result: result,
) -> dict[str, Result]:
    """Run jobs in order, at most ``workers`` at once; return results by name.

    Args:
        jobs: the jobs, those that others need among them.
        run: does a job; a function that other processes can import.
        workers: number of processes.
        seconds: time in seconds after which no job starts.
        needs: names of the jobs that must have succeeded before a job starts.
        shown: what to print of a result. A job that fails is printed with its error instead, and
            has no result.
    """
    began, results = time.monotonic(), dict[str, Result]()
    waiting, running = {job.name: job for job in jobs}, dict[Future[Result], str]()
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        while waiting or running:
            ready = [job for job in waiting.values() if needs(job) <= results.keys()]
            for job in ready[: max(0, workers - len(running))]:
                if time.monotonic() - began > seconds:
                    break
                running[pool.submit(run, waiting.pop(job.name))] = job.name
            if not running:
                break
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                name = running.pop(future)
                try:
                    results[name] = future.result()
                except Exception as error:
                    print(f"{name}: {type(error).__name__}: {error}", flush=True)
                else:
                    spent = time.monotonic() - began
                    print(f"{spent:6.0f} s  {name}  {shown(results[name])}", flush=True)
    return results
