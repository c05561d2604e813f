"""Run one measurement in this process; writes JSON.

    python -m stream_bench.measure {source,write,rate,check,memory_bandwidth} WORK OUT …

Legend: b samples per batch, N samples, L tokens per sample.
"""

import argparse
import importlib
import json
import os
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from stream_bench.peers import PEERS, Peer, arrays

NUM_CODES = 1024
NUM_CLASSES = 1000
REPEAT_SHARE = 0.4
"""Share of tokens that repeat their left neighbor, so that codecs find some structure."""
SOURCE_ROWS = 8192
LOOK_SECONDS = 0.5
COPY_BYTES = 256 << 20


def formats() -> dict[str, Peer]:
    """Return the peers, and seit's own loaders if it is installed."""
    try:
        ours = importlib.import_module("stream_bench.ours")
    except ImportError:
        return PEERS
    return {**PEERS, **ours.OURS, **ours.LIMITS}


def write_source(work: Path, num_samples: int, length: int) -> dict[str, Any]:
    """Write the samples as arrays, and return the expected checksums."""
    rng = np.random.default_rng(0)
    shape = (num_samples, length)
    tokens = np.lib.format.open_memmap(work / "tokens.npy", mode="w+", dtype=np.uint16, shape=shape)
    labels = rng.integers(NUM_CLASSES, size=num_samples)
    for first in range(0, num_samples, SOURCE_ROWS):
        rows = rng.integers(NUM_CODES, size=tokens[first : first + SOURCE_ROWS].shape)
        repeated = np.flatnonzero(rng.random(rows.shape) < REPEAT_SHARE)
        rows.reshape(-1)[repeated] = rows.reshape(-1)[repeated - 1]
        tokens[first : first + SOURCE_ROWS] = rows
    tokens.flush()
    np.save(work / "labels.npy", labels)
    sums = {}
    for num_codes in {NUM_CODES, *(peer.num_codes or NUM_CODES for peer in PEERS.values())}:
        parts = (
            checksum(np.asarray(tokens[rows]) % num_codes, labels[rows])
            for rows in slices(num_samples)
        )
        sums[str(num_codes)] = sum(parts) % (1 << 64)
    return {"checksums": sums}


def slices(num_samples: int) -> Iterator[slice]:
    """Yield slices of rows."""
    for first in range(0, num_samples, SOURCE_ROWS):
        yield slice(first, first + SOURCE_ROWS)


def checksum(tokens: npt.NDArray[Any], labels: npt.NDArray[Any]) -> int:
    """Return a checksum that depends on positions and labels, but not on sample order."""
    weights = np.random.default_rng(1).integers(1 << 63, size=tokens.shape[1], dtype=np.uint64)
    rows = (tokens.astype(np.uint64) * weights).sum(axis=1)
    scale = labels.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
    return int((rows * scale).sum())


def processes() -> list[int]:
    """Return this process and its descendants."""
    found = [os.getpid()]
    for pid in found:
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in read_text(path).split()]
    return found


def read_text(path: Path) -> str:
    """Read a /proc file of a process; empty if the process is gone."""
    try:
        return path.read_text()
    except OSError:
        return ""


def memory_bytes() -> int:
    """Return anonymous and shared memory of all processes, shared parts counted once."""
    total = 0
    for pid in processes():
        for line in read_text(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                total += int(line.split()[1]) << 10
    return total


def cpu_seconds() -> float:
    """Return the CPU time of all living processes."""
    ticks = 0
    for pid in processes():
        fields = read_text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12]) if fields else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def rate(peer: Peer, folder: Path, batch_size: int, workers: int, seconds: float) -> dict[str, Any]:
    """Measure samples/s after the first batch, for some seconds and as many epochs as needed."""
    importlib.import_module("torch.utils.data")  # shared by all loaders, so not part of their start
    began = time.perf_counter()
    start = peer.open(folder, batch_size, workers)
    opened, before = time.perf_counter(), memory_bytes()
    batches = iter(start())
    next(batches)
    first = time.perf_counter()
    count, epochs, most = 0, 0, memory_bytes()
    cpu, started = cpu_seconds(), time.perf_counter()
    now = looked = started
    while now - started < seconds:
        for _, labels in batches:
            count += len(labels)
            now = time.perf_counter()
            if now - looked > LOOK_SECONDS:
                most, looked = max(most, memory_bytes()), now
            if now - started >= seconds:
                break
        else:
            epochs += 1
            batches = iter(start())
    return {
        "samples_per_second": count / (now - started),
        "cpu_us_per_sample": (cpu_seconds() - cpu) / count * 1e6,
        "import_seconds": opened - began,
        "first_batch_seconds": first - opened,
        "memory_mb": (max(most, memory_bytes()) - before) / 1e6,
        "whole_epochs": epochs,
        "version": version_of(peer),
    }


def check(
    peer: Peer, folder: Path, batch_size: int, workers: int, seconds: float
) -> dict[str, Any]:
    """Return the checksum of one epoch, or how far it got."""
    total, count, started = 0, 0, time.perf_counter()
    whole = True
    for tokens, labels in peer.open(folder, batch_size, workers)():
        ids = np.asarray(tokens).reshape(len(labels), -1)
        total += checksum(ids, np.asarray(labels).reshape(-1))
        count += len(labels)
        if time.perf_counter() - started > seconds:
            whole = False
            break
    return {
        "samples": count,
        "checksum": total % (1 << 64),
        "whole": whole,
        "dtype": str(tokens.dtype).removeprefix("torch."),
        "samples_per_second": count / (time.perf_counter() - started),
    }


def version_of(peer: Peer) -> str:
    """Return the version of the reading package, empty if it is not a separate one."""
    try:
        return version(peer.packages[0]) if peer.packages else ""
    except PackageNotFoundError:
        return ""


def memory_bandwidth() -> dict[str, Any]:
    """Measure GB/s of a memory copy by one thread."""
    source = np.ones(COPY_BYTES, np.uint8)
    target = np.empty_like(source)
    np.copyto(target, source)
    started = time.perf_counter()
    np.copyto(target, source)
    return {"gb_per_second": COPY_BYTES / (time.perf_counter() - started) / 1e9}


def write(peer: Peer, work: Path, folder: Path) -> dict[str, Any]:
    """Write the peer's format; return bytes and seconds."""
    folder.mkdir(parents=True)
    started = time.perf_counter()
    peer.write(work, folder)
    seconds = time.perf_counter() - started
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        "write_seconds": seconds,
        "bytes_per_sample": sum(path.stat().st_size for path in files) / len(arrays(work)[1]),
    }


def main() -> None:
    """Run one measurement."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("action")
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", default="")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--samples", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    if given.action == "source":
        result = write_source(given.work, given.samples, given.tokens)
    elif given.action == "memory_bandwidth":
        result = memory_bandwidth()
    else:
        peer = formats()[given.name]
        if given.action == "write":
            result = write(peer, given.work, given.folder)
        else:
            action = {"rate": rate, "check": check}[given.action]
            result = action(peer, given.folder, given.batch_size, given.workers, given.seconds)
    given.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
