"""Pools that decode inputs into arrays, in order: threads, or processes that may die.

Threads share the interpreter lock, which an image holds for a fifth of its time, so more than about
five do not help. Processes are limited only by how fast one process can read from pipes.

A process that dies, killed or out of memory, is replaced and its inputs are read again; an input
that kills three processes ends the job, which names it. Processes exit with their parent.
"""

import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, suppress
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from seit.errors import SeitError
from seit.lookahead import results_ahead

WORKER_MODULE = "seit.ingest.inputs.worker"
CHUNK_ITEMS = 8
"""Inputs sent to a process at a time."""
_ATTEMPTS = 3


class Keyed(Protocol):
    """Input with a name for messages."""

    @property
    def key(self) -> str:
        """Name in messages."""


_Item = TypeVar("_Item", bound=Keyed)
_Item_contra = TypeVar("_Item_contra", bound=Keyed, contravariant=True)
_Result = TypeVar("_Result")
_Result_co = TypeVar("_Result_co", covariant=True)


class Decoder(Protocol[_Item_contra, _Result_co]):
    """Function from one input to a result; processes require that it, inputs and results pickle.

    It does memory-intensive work under ``exclusive``, a lock with one holder at a time.
    """

    def __call__(
        self, item: _Item_contra, /, *, exclusive: AbstractContextManager[Any]
    ) -> _Result_co:
        """Decode an input."""


class DecodingPool(Generic[_Item, _Result]):
    """Pool of ``workers`` threads or processes that maps inputs to results."""

    def __init__(
        self, decoder: Decoder[_Item, _Result], *, workers: int, processes: bool = False
    ) -> None:
        self._decoder = decoder
        self._chunk_items = CHUNK_ITEMS if processes else 1
        self._exclusive = threading.Lock()
        self._lock_file = tempfile.NamedTemporaryFile(prefix="seit-") if processes else None  # noqa: SIM115
        self._own = threading.local()
        self._started: list[_Process] = []
        self._is_closed = False
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")

    def close(self) -> None:
        """Stop all workers, discarding unfinished work."""
        self._is_closed = True
        for process in self._started:
            process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for process in self._started:
            process.close()
        if self._lock_file:
            self._lock_file.close()

    def map(self, items: Iterable[_Item], *, ahead: int) -> Iterator[_Result]:
        """Yield the results in the order of the items, holding at most ``ahead``.

        Raises:
            SeitError: an item kills every process that decodes it, or it cannot be read.
        """
        iterator = iter(items)
        size = min(self._chunk_items, ahead)
        chunks = iter(lambda: list(islice(iterator, size)), [])
        results = results_ahead(
            lambda chunk: self._pool.submit(self._decode, chunk),
            chunks,
            held=lambda _: -(-ahead // size) - 1,
        )
        with closing(results):
            for found in results:
                yield from found

    def _decode(self, chunk: Sequence[_Item]) -> list[_Result]:
        if not self._lock_file:
            return [self._decoder(item, exclusive=self._exclusive) for item in chunk]
        with suppress(_DiedError):
            return self._ask(chunk)
        return [self._insist(item) for item in chunk]

    def _insist(self, item: _Item) -> _Result:
        for attempt in range(_ATTEMPTS):
            try:
                return self._ask([item])[0]
            except _DiedError as died:
                if attempt == _ATTEMPTS - 1 or self._is_closed:
                    raise SeitError(
                        f"{item.key} ended {_ATTEMPTS} decoding processes, the last one with "
                        f"{died}; if memory ran out, run the same command with fewer workers, "
                        "otherwise remove the file"
                    ) from None
        raise AssertionError("unreachable")

    def _ask(self, chunk: Sequence[_Item]) -> list[_Result]:
        process: _Process | None = getattr(self._own, "process", None)
        if self._is_closed:
            raise _DiedError("the end of the job")
        if process is None:
            assert self._lock_file
            process = self._own.process = _Process((self._decoder, self._lock_file.name))
            self._started.append(process)
        try:
            results: list[_Result] = process.ask(chunk)
        except _DiedError:
            self._own.process = None
            raise
        return results


class _DiedError(Exception):
    """Death of a process; the message says how."""


class _Process:
    """Worker process and its pipes."""

    def __init__(self, setup: object) -> None:
        self._popen = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", WORKER_MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self._setup: object | None = setup

    def ask(self, items: Sequence[object]) -> Any:
        assert self._popen.stdin
        assert self._popen.stdout
        try:
            if self._setup:
                pickle.dump(self._setup, self._popen.stdin, protocol=5)
                self._setup = None
            pickle.dump(items, self._popen.stdin, protocol=5)
            self._popen.stdin.flush()
            answer = pickle.load(self._popen.stdout)  # noqa: S301 - from our own process
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            self.kill()
            status = self._popen.wait()
            self.close()
            how = f"signal {-status}" if status < 0 else f"exit code {status}"
            raise _DiedError(how) from None
        if isinstance(answer, SeitError):
            raise answer
        return answer

    def kill(self) -> None:
        self._popen.kill()

    def close(self) -> None:
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            assert pipe
            with suppress(OSError):  # unsent data cannot be flushed
                pipe.close()
