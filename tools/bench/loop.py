"""Measure the training loop against bare steps in CPU and wall time, in one process; prints JSON.

    uv run python tools/bench/loop.py STORE --recipe small-cpu --steps 120 --threads 1 2

A run of `seit.training` reads, augments, averages weights, clips and logs, without evaluations and
checkpoints. After every --block steps it pauses for as many bare steps of the same network
(forward, loss, backward and update) on one ready batch, so that other load disturbs both alike.
`overhead` is what a step of the loop costs above a bare one, in CPU time of all threads: the median
over the blocks. `batches` is the part of it that the thread takes which reads and augments.
`overhead_wall` is the same in wall time, which says something on idle cores only.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from seit.shards import Store, open_store
from seit.training import TrainConfig, train
from seit.training.versions import environment
from train import Tokens, recipe_config

SETTLE_SECONDS = 0.05
"""Time for the next batch to be ready, and for idle threads to stop spinning."""


@dataclass
class Clock:
    """CPU and wall seconds of blocks of steps: of the loop, of its thread for batches, and bare."""

    bare: Tokens
    block: int
    loops: list[float] = field(default_factory=list)
    batches: list[float] = field(default_factory=list)
    bares: list[float] = field(default_factory=list)
    loops_wall: list[float] = field(default_factory=list)
    bares_wall: list[float] = field(default_factory=list)
    _mark: tuple[float, float, float] | None = None

    def __call__(self, step: int, total: int, latest: Any) -> None:
        """Run bare steps after each block; the first block does not count."""
        del total, latest
        if step % self.block:
            return
        wall = time.perf_counter()
        time.sleep(SETTLE_SECONDS)
        now, others = time.process_time(), _threads_time()
        started = time.perf_counter()
        self.bare.run(self.block)
        ended = time.perf_counter()
        time.sleep(SETTLE_SECONDS)
        if self._mark is not None:
            self.loops.append(now - self._mark[0])
            self.batches.append(others - self._mark[1])
            self.loops_wall.append(wall - self._mark[2])
            self.bares.append(time.process_time() - now)
            self.bares_wall.append(ended - started)
        self._mark = time.process_time(), _threads_time(), time.perf_counter()

    def figures(self) -> dict[str, float]:
        """Return milliseconds per step, and what the loop costs above bare steps."""
        pairs = list(zip(self.loops, self.bares, self.batches, strict=True))
        walls = list(zip(self.loops_wall, self.bares_wall, strict=True))
        return {
            "bare_ms": 1000 * median(self.bares) / self.block,
            "loop_ms": 1000 * median(self.loops) / self.block,
            "batches_ms": 1000 * median(self.batches) / self.block,
            "overhead": median(loop / bare - 1 for loop, bare, _ in pairs),
            "overhead_batches": median(batches / bare for _, bare, batches in pairs),
            "bare_wall_ms": 1000 * median(self.bares_wall) / self.block,
            "loop_wall_ms": 1000 * median(self.loops_wall) / self.block,
            "overhead_wall": median(loop / bare - 1 for loop, bare in walls),
        }


def _threads_time() -> float:
    """Return the CPU seconds of Python's threads other than this one."""
    others = [one.ident for one in threading.enumerate() if one is not threading.current_thread()]
    clocks = [time.pthread_getcpuclockid(ident) for ident in others if ident is not None]
    return sum(map(time.clock_gettime, clocks))


def measure(config: TrainConfig, store: Store, *, block: int) -> Clock:
    """Return the times of one run."""
    clock = Clock(Tokens(config, store, torch.device("cpu")), block)
    with tempfile.TemporaryDirectory() as folder:
        train(config, store, out=Path(folder) / "run", progress=clock)
    return clock


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store")
    parser.add_argument("--recipe", default="small-cpu")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--block", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--batch-size", type=int)
    arguments = parser.parse_args()
    store = open_store(arguments.store)
    config = recipe_config(arguments.recipe, steps=arguments.steps, batch_size=arguments.batch_size)
    rows = {}
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        rows[threads] = measure(config, store, block=arguments.block).figures()
    report = {
        "benchmark": "loop",
        "recipe": arguments.recipe,
        "batch_size": config.data.batch_size,
        "steps": arguments.steps,
        "threads": rows,
        "environment": {**environment(torch.device("cpu")), "cores": os.cpu_count()},
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
