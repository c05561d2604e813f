"""Measurement in a fresh process, which nothing that this one did can disturb."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Timer
from typing import IO, Any

import seit
from seit.compression.footprint.child import ERROR, FIGURES, FIRST
from seit.documents import parse_json
from seit.errors import SeitError, UsageError

CHILD = "seit.compression.footprint.child"
START_SECONDS = 300.0
"""Longest time for the imports and the first result."""
_PATIENCE = 20
"""Longest time for the batches, as a multiple of what they are allowed."""
_TAIL = 400


def measure_apart(
    kind: str, path: Path, *, batch_sizes: Sequence[int], threads: int, seconds: float
) -> dict[str, Any]:
    """Return the answer of the measuring process, with the ``cold_start_seconds`` of the process.

    Args:
        kind: kind of target.
        path: its path.
        batch_sizes: batch sizes, ascending.
        threads: threads of an operator.
        seconds: time to spend on each batch size.

    Raises:
        SeitError: the target cannot be measured, or the process died or took too long.
    """
    request = {
        "kind": kind,
        "path": str(path),
        "batch_sizes": list(batch_sizes),
        "threads": threads,
        "seconds": seconds,
    }
    limit = START_SECONDS + _PATIENCE * seconds * len(batch_sizes)
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = _start(threads, errors)
        timer = Timer(limit, process.kill)
        timer.start()
        try:
            return _converse(process, request, started=started)
        except (ValueError, OSError) as error:
            is_late = time.perf_counter() - started >= limit
            raise SeitError(_failure(path, process, errors, is_late, limit)) from error
        finally:
            timer.cancel()
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


def _start(threads: int, errors: IO[bytes]) -> subprocess.Popen[str]:
    home = str(Path(seit.__file__).parents[1])
    found = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "PYTHONPATH": home if not found else os.pathsep.join((home, found)),
        "CUDA_VISIBLE_DEVICES": "",
    }
    return subprocess.Popen(  # noqa: S603 - no shell, and no argument from outside
        [sys.executable, "-P", "-m", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=environment,
        text=True,
    )


def _converse(
    process: subprocess.Popen[str], request: Mapping[str, Any], *, started: float
) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    first = _read(process.stdout)
    cold = time.perf_counter() - started
    last = _read(process.stdout) if FIRST in first else first
    if FIGURES not in last:
        kind = UsageError if last.get("exit_code") == UsageError.exit_code else SeitError
        raise kind(str(last.get(ERROR)))
    return {**last[FIGURES], "cold_start_seconds": cold}


def _read(stream: IO[str]) -> dict[str, Any]:
    """Read a line of JSON; raise a `ValueError` if the process has ended."""
    found = parse_json(stream.readline())
    if not isinstance(found, dict):
        raise ValueError("the answer is no object")
    return found


def _failure(
    path: Path, process: subprocess.Popen[str], errors: IO[bytes], is_late: bool, limit: float
) -> str:
    if is_late:
        return f"{path} took over {limit:.0f} s to be measured; pass smaller --batch-size"
    code = process.wait()
    if code < 0:
        return (
            f"the process that measured {path} was ended by signal {-code}, as when memory is "
            "short; pass smaller --batch-size"
        )
    errors.seek(0)
    text = errors.read().decode(errors="replace").strip()
    reason = text.splitlines()[-1][-_TAIL:] if text else f"exit code {code}"
    return f"{path} cannot be measured ({reason}); it is of another kind than its name, or damaged"
