"""Process that measures: `python -m seit.compression.footprint.child`.

It reads one JSON object from stdin and answers with two lines of JSON on stdout: one when the first
result is there, and one with all figures, or with the error.
"""

import json
import os
import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from seit.compression.footprint.memory import (
    Memory,
    peak_bytes,
    reset_peak,
    resident_bytes,
)
from seit.errors import SeitError
from seit.memory import available_bytes

FIRST, FIGURES, ERROR = "first", "figures", "error"


def main() -> None:
    """Answer the request on stdin."""
    answers = _own_stdout()
    request = json.loads(sys.stdin.readline())
    try:
        figures = _measure(request, answers)
    except SeitError as error:
        _answer(answers, {ERROR: str(error), "exit_code": error.exit_code})
    except MemoryError:
        text = f"{request['path']} takes more memory than there is; pass a smaller --batch-size"
        _answer(answers, {ERROR: text, "exit_code": SeitError.exit_code})
    else:
        _answer(answers, {FIGURES: figures})


def _measure(request: dict[str, Any], answers: TextIO) -> dict[str, Any]:
    import torch

    from seit.compression.footprint.clock import WARM_UP, time_calls
    from seit.compression.footprint.energy import JouleMeter
    from seit.compression.footprint.targets.registry import TARGETS

    torch.set_num_threads(request["threads"])
    target = TARGETS[request["kind"]](Path(request["path"]))
    _bound_memory()
    target.prepare()
    reset_peak()
    before = resident_bytes()
    loaded = target.load(request["threads"])
    calls = {size: loaded.call(size) for size in request["batch_sizes"][:1]}
    next(iter(calls.values()))()
    _answer(answers, {FIRST: True})
    latency: dict[str, Any] = {}
    joules = None
    for size in request["batch_sizes"]:
        call = calls.get(size) or loaded.call(size)
        for _ in range(WARM_UP):
            call()
        meter = JouleMeter()  # of the calls that are timed, and no others
        latency[str(size)] = asdict(time_calls(call, seconds=request["seconds"], warm_up=0))
        spent = meter.joules()
        runs = latency[str(size)]["repeats"]
        joules = None if spent is None else spent / (runs * size)
    memory = Memory(before=before, after=resident_bytes(), peak=peak_bytes())
    return {
        "latency_ms": latency,
        "memory": asdict(memory),
        "joules_per_sample": joules,
        "counts": asdict(target.counts()),
    }


def _bound_memory() -> None:
    """Let allocations beyond the memory that is left fail instead of ending other processes."""
    left = available_bytes()
    if left is not None:
        limit = resident_bytes() + left
        resource.setrlimit(
            resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1])
        )


def _own_stdout() -> TextIO:
    """Return stdout for answers alone; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _answer(answers: TextIO, value: dict[str, Any]) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
