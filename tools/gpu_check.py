"""The Triton decoders on a CUDA device: run their tests, time them, print JSON.

    uv run python tools/gpu_check.py

Unpacking stands beside a plain copy that moves as many bytes, and beside the same in torch; context
decoding beside the processor's decoder. Each figure is the median of the repeats of one run.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from seit.shards.context.coder import Coder
from seit.shards.context.fit import fit_tables
from seit.shards.packed import sample_bytes, token_bits
from seit.stream import unpack
from seit.stream.kernels import (
    ContextDecoder,
    DeviceTables,
    decode_context_triton,
    triton_serves,
    unpack_triton,
)
from seit.train.run import environment

ROOT = Path(__file__).parents[1]
GRID = (32, 32)
LENGTH = GRID[0] * GRID[1]
RESIDENT_SAMPLES = 1 << 19
UNPACK_BATCHES = (1024, 65536)
CONTEXT_BATCHES = (1024, 8192, 65536)
CODED_SAMPLES = 2048


def run_tests() -> dict[str, object]:
    """The tests marked gpu: how they ended."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/test_kernels.py"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = result.stdout.strip().splitlines() or [result.stderr.strip()]
    return {"passed": result.returncode == 0, "summary": lines[-1]}


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The median time of ``work`` on the device, after one run that compiles."""
    work()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return statistics.median(times)


def time_unpacking(num_codes: int, repeats: int) -> list[dict[str, float]]:
    """GB/s, read and written, of gathering and unpacking random rows of a resident split."""
    size = sample_bytes(LENGTH, token_bits(num_codes))
    packed_NS = torch.randint(256, (RESIDENT_SAMPLES, size), dtype=torch.uint8, device="cuda")
    entries = []
    for batch in UNPACK_BATCHES:
        rows = torch.randint(RESIDENT_SAMPLES, (batch,), device="cuda")
        found = unpack_triton(packed_NS, length=LENGTH, num_codes=num_codes, rows=rows)
        if not torch.equal(found, unpack(packed_NS[rows], length=LENGTH, num_codes=num_codes)):
            raise SystemExit("the unpacked ids are not those of seit.stream.unpack")
        moved = batch * size + found.nbytes
        source = torch.zeros(moved // 2, dtype=torch.uint8, device="cuda")
        target = torch.empty_like(source)
        work = {
            "triton": lambda rows=rows: unpack_triton(
                packed_NS, length=LENGTH, num_codes=num_codes, rows=rows
            ),
            "torch": lambda rows=rows: unpack(packed_NS[rows], length=LENGTH, num_codes=num_codes),
            "copy": lambda source=source, target=target: target.copy_(source),
        }
        rates = {name: moved / seconds(run, repeats) / 1e9 for name, run in work.items()}
        entries.append({"batch": batch, "bytes_moved": moved, "gb_per_second": rates})
    return entries


def smooth_tokens(num_codes: int, count: int) -> np.ndarray:
    """Ids (N, H, W) that resemble their neighbours, as those of pictures do."""
    walk = np.random.default_rng(0).normal(size=(count, *GRID)).cumsum(1).cumsum(2)
    ranks = walk.reshape(-1).argsort().argsort().reshape(walk.shape)
    return (ranks * num_codes // ranks.size).astype(np.uint16)


def time_context(num_codes: int, repeats: int) -> dict[str, object]:
    """Samples per second of context decoding on the device, and on the processor's one core."""
    tokens = smooth_tokens(num_codes, CODED_SAMPLES)
    codebook = np.arange(num_codes, dtype=np.float64)[:, None]
    tables = fit_tables(tokens, codebook, total_samples=1_000_000)
    words, sizes = Coder(tables).encode(tokens.reshape(len(tokens), -1), GRID)
    ends = np.cumsum(sizes)
    bounds = torch.from_numpy(np.stack([ends - sizes, ends], axis=1))
    words_once = torch.from_numpy(words.view(np.int16))
    on_processor = ContextDecoder(tables, device=torch.device("cpu"))
    on_processor.decode(words_once, bounds[:4], GRID)
    started = time.perf_counter()
    on_processor.decode(words_once, bounds, GRID)
    processor_rate = len(tokens) / (time.perf_counter() - started)
    on_device = DeviceTables.from_tables(tables, torch.device("cuda"))
    expected = torch.from_numpy(tokens.view(np.int16)).cuda()
    entries = []
    for batch in CONTEXT_BATCHES:
        # Copies lie at places of their own, so that no cache helps more than it would.
        copies = -(-batch // len(tokens))
        shifts = torch.arange(copies)[:, None, None] * len(words)
        many_bounds = (bounds + shifts).view(-1, 2)[:batch].cuda()
        many_words = words_once.repeat(copies).cuda()

        def work(words=many_words, bounds=many_bounds):
            return decode_context_triton(words, bounds, GRID, on_device)

        ids, whole = work()
        wanted = expected.repeat(copies, 1, 1)[:batch]
        if not (whole.all() and torch.equal(ids, wanted)):
            raise SystemExit("the decoded ids are not those that were coded")
        rate = batch / seconds(work, repeats)
        entries.append({"batch": batch, "samples_per_second": rate})
    return {
        "bytes_per_sample": 2 * len(words) / len(tokens),
        "packed_bytes_per_sample": sample_bytes(LENGTH, token_bits(num_codes)),
        "table_bytes_on_device": on_device.weights.nbytes + on_device.corner.nbytes,
        "processor_samples_per_second": processor_rate,
        "device": entries,
    }


def main() -> None:
    """Run the tests and the timings and print their JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codes", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu_check needs a CUDA device, and torch finds none here", file=sys.stderr)
        sys.exit(2)
    device = torch.device("cuda")
    if not triton_serves(device):
        sys.exit(1)
    import triton

    tests = run_tests()
    report = {
        "benchmark": "gpu_check",
        "codes": arguments.codes,
        "grid": GRID,
        "repeats": arguments.repeats,
        "tests": tests,
        "unpack": time_unpacking(arguments.codes, arguments.repeats),
        "context": time_context(arguments.codes, arguments.repeats),
        "environment": {
            **environment(device),
            "triton": triton.__version__,
            "cuda": torch.version.cuda,
        },
    }
    print(json.dumps(report, indent=2))
    sys.exit(0 if tests["passed"] else 1)


if __name__ == "__main__":
    main()
