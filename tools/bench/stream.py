"""Compare seit's loaders with others: shuffled samples/s, memory, time to the first batch; JSON.

    uv run python tools/bench/stream.py --work WORK [--samples 200000] [--batch-size 256] --json

One set of random samples, 1,024 tokens of 1,024 codes each, is written once in every format; WORK
keeps them, about 6 GB. Each measurement is a separate process that reads for some seconds from a
warm page cache. Rounds are interleaved, and the median counts. Loaders with worker processes run
with none and with two, and the better result counts. Finally one epoch of each is compared with the
samples by a checksum. Peers are installed into separate environments under WORK; the reason is
reported if one fails to install.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from stream_bench.measure import NUM_CODES
from stream_bench.ours import LIMITS, OURS
from stream_bench.peers import PEERS, Peer

from seit.training.versions import environment

TOOLS = Path(__file__).parent
WRITE_SECONDS = 900
CHECK_SECONDS = 60
GRACE_SECONDS = 90
"""Time to import, fill a shuffle buffer, and exit."""


class MeasurementError(Exception):
    """A failed measurement; the message has the reason."""


@dataclass
class Bench:
    """Settings of the measurements, and reasons for missing peers.

    Attributes:
        work: the folder of formats and environments.
        batch_size: samples per batch.
        seconds: length of one measurement.
        unavailable: peer → reason.
    """

    work: Path
    batch_size: int
    seconds: float
    unavailable: dict[str, str] = field(default_factory=dict)

    def python_of(self, peer: Peer) -> str:
        """Return the interpreter of a peer's environment, creating it if necessary."""
        if not peer.packages:
            return sys.executable
        folder = self.work / "envs" / peer.packages[0]
        python = folder / "bin" / "python"
        if not (folder / "done").exists():
            torch_version = torch.__version__.partition("+")[0]
            call("uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
            install = ("uv", "pip", "install", "--quiet", "--python", str(python))
            call(*install, f"torch=={torch_version}", *peer.packages[1:])
            call(*install, f"torch=={torch_version}", *peer.packages)
            (folder / "done").touch()
        return str(python)

    def run(self, action: str, peer: Peer | None = None, *arguments: object) -> dict[str, Any]:
        """Run one measurement in a separate process, in the peer's environment."""
        python = self.python_of(peer) if peer else sys.executable
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            out, log = Path(folder) / "out.json", Path(folder) / "log"
            command = [python, "-m", "stream_bench.measure", action, str(self.work), str(out)]
            with log.open("wb") as file:
                process = subprocess.Popen(
                    [*command, *map(str, arguments)],
                    env=self._variables(folder),
                    cwd=folder,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                )
                try:
                    process.wait(WRITE_SECONDS)
                except subprocess.TimeoutExpired:
                    file.write(f"\nnot done after {WRITE_SECONDS} s".encode())
                finally:
                    end_group(process)
            if not out.exists():
                raise MeasurementError(last_line(log.read_text(errors="replace")))
            return dict(json.loads(out.read_text()))

    def read(self, action: str, name: str, peer: Peer, workers: int, seconds: float) -> Any:
        """Measure or check a loader."""
        return self.run(
            action,
            peer,
            *("--name", name, "--folder", self.work / "formats" / peer.format),
            *("--batch-size", self.batch_size, "--workers", workers, "--seconds", seconds),
        )

    def prepare(self, name: str, peer: Peer) -> dict[str, Any] | None:
        """Write a peer's format and return its cost, or None if that fails."""
        folder = self.work / "formats" / peer.format
        note = folder.with_suffix(".json")
        try:
            if not note.exists():
                remove(folder)
                written = self.run("write", peer, "--name", name, "--folder", folder)
                note.write_text(json.dumps(written))
            return dict(json.loads(note.read_text()))
        except MeasurementError as error:
            self.unavailable[name] = str(error)
            return None

    def _variables(self, folder: str) -> Mapping[str, str]:
        """Return variables for one thread and no writes outside of the work folder."""
        caches = ("DATA_OPTIMIZER_CACHE_FOLDER", "DATA_OPTIMIZER_DATA_CACHE_FOLDER", "HF_HOME")
        return {
            **os.environ,
            **{name: f"{folder}/{name.lower()}" for name in caches},
            "TMPDIR": folder,
            "HOME": folder,
            "PYTHONPATH": str(TOOLS),
            "OMP_NUM_THREADS": "1",
            "NUMBA_CACHE_DIR": str(self.work / "numba"),
        }


def call(*command: str) -> None:
    """Run a command and wait for it."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise MeasurementError(f"{' '.join(command[:3])}: {last_line(result.stderr)}")


def last_line(text: str) -> str:
    """Return the last non-empty line of an output, preferably an error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line]
    return (errors or lines or ["no output"])[-1]


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def remove(folder: Path) -> None:
    """Remove the leftovers of an interrupted run."""
    if folder.exists():
        call("rm", "-r", str(folder))


def spread(values: list[float]) -> dict[str, float]:
    """Return median, minimum and maximum over rounds."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def summarize(by_workers: Mapping[int, list[dict[str, Any]]]) -> dict[str, Any]:
    """Summarize the rounds of one loader with its best number of workers."""
    rates = {
        workers: spread([entry["samples_per_second"] for entry in rounds])
        for workers, rounds in by_workers.items()
    }
    best = max(rates, key=lambda workers: rates[workers]["median"])
    names = ("cpu_us_per_sample", "import_seconds", "first_batch_seconds", "memory_mb")
    return {
        "samples_per_second": rates[best],
        "workers": best,
        "by_workers": {str(workers): entry["median"] for workers, entry in rates.items()},
        **{name: statistics.median(entry[name] for entry in by_workers[best]) for name in names},
        "version": by_workers[best][0]["version"],
    }


def verdict(checked: dict[str, Any], expected: Mapping[str, int], peer: Peer, total: int) -> str:
    """Describe whether every sample came exactly once and unchanged."""
    if not checked["whole"]:
        return f"not finished after {checked['samples']} samples"
    if checked["samples"] != total:
        return f"wrong: {checked['samples']} samples"
    same = checked["checksum"] == expected[str(peer.num_codes or NUM_CODES)]
    return "exact" if same else "wrong: other tokens or labels"


def measure(bench: Bench, names: list[str], num_samples: int, rounds: int) -> dict[str, Any]:
    """Measure the loaders ``names``."""
    loaders = {**OURS, **LIMITS, **PEERS}
    source = json.loads((bench.work / "source.json").read_text())
    written = {name: bench.prepare(name, loaders[name]) for name in names}
    found: dict[str, dict[int, list[dict[str, Any]]]] = {}
    copies = []
    for number in range(rounds):
        for name in [name for name in names if written[name] and name not in bench.unavailable]:
            for workers in loaders[name].workers:
                try:
                    entry = bench.read("rate", name, loaders[name], workers, bench.seconds)
                except MeasurementError as error:
                    bench.unavailable[name] = f"{workers} workers: {error}"
                    continue
                found.setdefault(name, {}).setdefault(workers, []).append(entry)
                show(f"round {number + 1}, {name}, {workers} workers", entry)
        copies.append(bench.run("memory_bandwidth")["gb_per_second"])
    details = {}
    for name, by_workers in found.items():
        peer = loaders[name]
        details[name] = {**summarize(by_workers), "shuffle": peer.shuffle, **(written[name] or {})}
        if name not in LIMITS:
            workers = details[name]["workers"]
            try:
                checked = bench.read("check", name, peer, workers, CHECK_SECONDS)
                details[name]["check"] = verdict(checked, source["checksums"], peer, num_samples)
                details[name]["dtype"] = checked["dtype"]
                details[name]["checked_samples_per_second"] = checked["samples_per_second"]
            except MeasurementError as error:
                details[name]["check"] = f"failed: {error}"
            show(f"check of {name}", {"check": details[name]["check"]})
    return {"details": details, "memory_gb_per_second": spread(copies)}


def show(what: str, entry: Mapping[str, Any]) -> None:
    """Print progress to stderr."""
    figures = {name: round(value, 2) for name, value in entry.items() if isinstance(value, float)}
    print(what, figures or dict(entry), file=sys.stderr, flush=True)


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="a folder with 10 GB to spare")
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="measure only these loaders")
    parser.add_argument("--json", action="store_true", help="ignored; output is always JSON")
    given = parser.parse_args()
    work = given.work.resolve()
    (work / "formats").mkdir(parents=True, exist_ok=True)
    num_samples = given.samples // given.batch_size * given.batch_size
    bench = Bench(work, given.batch_size, given.seconds)
    source = work / "source.json"
    if not source.exists():
        made = bench.run("source", None, "--samples", num_samples)
        source.write_text(json.dumps({"samples": num_samples, **made}))
    if json.loads(source.read_text())["samples"] != num_samples:
        raise SystemExit(f"{work} holds another number of samples; choose another folder")
    load_before = os.getloadavg()
    names = given.only or [*OURS, *LIMITS, *PEERS]
    result = measure(bench, names, num_samples, given.rounds)
    details = result["details"]
    rates = {name: entry["samples_per_second"]["median"] for name, entry in details.items()}
    report = {
        "benchmark": "stream",
        "samples": num_samples,
        "batch_size": given.batch_size,
        "rounds": given.rounds,
        "seconds": given.seconds,
        "ours": {name: rates[name] for name in OURS if name in rates},
        "peers": {name: rates[name] for name in PEERS if name in rates},
        "unavailable": bench.unavailable,
        "limits": {
            **{name: rates[name] for name in LIMITS if name in rates},
            "memory_gb_per_second": result["memory_gb_per_second"],
        },
        "details": details,
        "environment": {
            **environment(torch.device("cpu")),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load_before": load_before,
            "load_after": os.getloadavg(),
        },
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
