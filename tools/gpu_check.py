"""All that wants a GPU in one call, the most important first; prints a JSON object per figure.

    uv run python tools/gpu_check.py --minutes 8 --out FILE
    uv run python tools/gpu_check.py --small            # the same on a CPU, in a minute

Parts, each in a process of its own, cut off when the time is up; what it printed until then counts:

    steps     training ViT-B/16 and ViT-S/16 from tokens: eager, compiled by blocks and as a whole;
              images/s, share of the measured matrix ceiling, memory, waiting for data
    pixels    the same network from JPEG files through timm's pipeline
    encode    images/s of the built-in tokenizers
    tests     the tests marked gpu
    kernels   the Triton kernels against copies and torch
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import torch

from seit.training import environment

ROOT = Path(__file__).parents[1]
GPU = ROOT / "tools" / "gpu"
TESTS = (
    "tests/stream/test_kernels.py",
    "tests/augment/test_fused.py",
    "tests/augment/test_philox.py",
    "tests/training/test_feeds.py",
    "tests/stream/test_streaming.py",
    "tests/augment/test_pipeline.py",
    "tests/pretraining/test_sit.py",
)
# One process, without plugins that warn about each other: a warning is an error here.
_ALONE = ("-n", "0", "-p", "no:benchmark")


def commands(work: Path, *, small: bool) -> dict[str, list[str]]:
    """Return the command of each part, by name."""
    size = ["--small"] if small else []
    here = ["--work", str(work), *size]
    parts = {
        "steps": [str(GPU / "steps.py"), *here],
        "pixels": [str(GPU / "steps.py"), *here, "--pixels"],
        "encode": [str(GPU / "encode.py"), *size],
    }
    if not small:
        parts["tests"] = ["-m", "pytest", "-q", "-m", "gpu", *_ALONE, *TESTS]
        parts["kernels"] = [str(GPU / "kernels.py")]
    return {name: [sys.executable, *command] for name, command in parts.items()}


def run(command: list[str], *, seconds: float, log: TextIO | int) -> Iterator[str]:
    """Yield the lines that a process prints until it ends or its time is up."""
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True
    ) as process:
        assert process.stdout is not None
        previous = signal.signal(signal.SIGALRM, lambda *_: process.kill())
        signal.alarm(max(1, int(seconds)))
        try:
            yield from process.stdout
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, previous)
            code = process.wait()
    yield json.dumps({"exit_code": code})


def entries(name: str, lines: Iterator[str]) -> Iterator[dict[str, object]]:
    """Yield the JSON objects of a part, and its last other line as `summary`."""
    last = ""
    for line in lines:
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if isinstance(found, dict):
            summary = {"summary": last} if last and "exit_code" in found else {}
            yield {"part": name, **found, **summary}
        else:
            last = line.strip() or last


def main() -> None:
    """Run the parts and print their JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts together")
    parser.add_argument("--out", type=Path, help="also append the lines to this file")
    parser.add_argument("--work", type=Path, default=Path("gpu-check"), help="folder of stores")
    parser.add_argument("--parts", help="names with commas between them; all by default")
    parser.add_argument("--small", action="store_true", help="tiny networks, on any device")
    arguments = parser.parse_args()
    if not arguments.small and not torch.cuda.is_available():
        sys.exit("gpu_check needs a CUDA device, and torch finds none; --small runs on a CPU")
    ends = time.monotonic() + 60 * arguments.minutes
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    arguments.work.mkdir(parents=True, exist_ok=True)
    found = commands(arguments.work.resolve(), small=arguments.small)
    wanted = arguments.parts.split(",") if arguments.parts else list(found)
    if unknown := [name for name in wanted if name not in found]:
        sys.exit(f"there is no part {unknown[0]!r}; there are {', '.join(found)}")
    failed = False
    with (arguments.work / "log.txt").open("a") as log:
        _say({"part": "environment", **environment(device)}, arguments.out)
        for name in wanted:
            began = time.monotonic()
            for entry in entries(name, run(found[name], seconds=ends - began, log=log)):
                if "exit_code" in entry:
                    entry["seconds"] = round(time.monotonic() - began, 1)
                    failed |= entry["exit_code"] != 0
                _say(entry, arguments.out)
    sys.exit(int(failed))


def _say(entry: dict[str, object], out: Path | None) -> None:
    line = json.dumps(entry)
    print(line, flush=True)
    if out is not None:
        with out.open("a") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
