"""Measure what commands cost before their work: CPU seconds, and modules loaded; prints JSON.

    uv run python tools/bench/start.py STORE --rounds 5

Each command runs in a process of its own, with compiled bytecode (one run before does not count).
`train` stops after its first step. CPU seconds are user and system time of the process and of what
it started; medians over the rounds. Other load on the machine raises them: compare figures of one
call only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch

from seit.training.versions import environment

HEAVY = ("torch", "timm", "numba", "torch._dynamo", "scipy", "torchvision", "transformers")
"""Packages whose import is reported."""
CHILD = """
import json, os, sys
from seit.cli.app import run
stop_at_first_step = sys.argv[1] == "first-step"
def report():
    import resource
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = sum(u.ru_utime + u.ru_stime for u in (own, children))
    loaded = [name for name in sys.argv[2].split(",") if name in sys.modules]
    result = {"cpu_seconds": seconds, "modules": len(sys.modules), "loaded": loaded}
    os.write(int(sys.argv[3]), json.dumps(result).encode())
if stop_at_first_step:
    from seit.training.loop import Loop
    def first(self, until):
        report()
        os._exit(0)
    Loop.due = first
try:
    run(sys.argv[4:])
except SystemExit:
    pass
report()
"""


def start(arguments: list[str], *, first_step: bool = False) -> dict[str, Any]:
    """Run a command in a new process; return its CPU seconds and modules."""
    read_end, write_end = os.pipe()
    mode = "first-step" if first_step else "end"
    command = [sys.executable, "-c", CHILD, mode, ",".join(HEAVY), str(write_end), *arguments]
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, pass_fds=[write_end], env=environ)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        text = pipe.read()
    if not text:
        raise SystemExit(f"seit {' '.join(arguments)} failed: {done.stderr.decode()[-500:]}")
    found: dict[str, Any] = json.loads(text)
    return found


def commands(store: str, folder: Path, label: str) -> dict[str, tuple[list[str], bool]]:
    """Return the commands of one round by name, and whether each stops at its first step."""
    target = folder / label
    return {
        "--help": (["--help"], False),
        "info": (["info", store], False),
        "verify": (["verify", store], False),
        "convert": (["convert", store, str(target / "converted"), "--container", "zarr"], False),
        "filter": (["filter", store, str(target / "half"), "--fraction", "0.5"], False),
        "runs list": (["runs", "list", str(folder)], False),
        "train, first step": (
            ["train", store, "--recipe", "small-cpu", "--steps", "2", "--out", str(target / "run")],
            True,
        ),
    }


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rows: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(-1, arguments.rounds):
            (folder / str(number)).mkdir()
            for title, (command, first) in commands(arguments.store, folder, str(number)).items():
                found = start(command, first_step=first)
                if number >= 0:
                    rows.setdefault(title, []).append(found)
    report = {
        "benchmark": "start",
        "rounds": arguments.rounds,
        "commands": {
            title: {
                "cpu_seconds": round(median(one["cpu_seconds"] for one in found), 2),
                "least": round(min(one["cpu_seconds"] for one in found), 2),
                "modules": found[0]["modules"],
                "loaded": found[0]["loaded"],
            }
            for title, found in rows.items()
        },
        "environment": {**environment(torch.device("cpu")), "cores": os.cpu_count()},
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
