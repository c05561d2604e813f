"""Fuzz the readers of untrusted bytes with coverage guidance (atheris, libFuzzer).

    uv run --group fuzz python tools/fuzz/run.py all --seconds 1800 --work FOLDER
    uv run --group fuzz python tools/fuzz/run.py card --seconds 60 --work FOLDER

FOLDER keeps the inputs that reached new code, and later runs start with them; the first starts with
the golden stores. Findings are kept there as ``TARGET-crash-…`` or similar; ``run.py TARGET --work
FOLDER --input FILE`` repeats one. Prints one JSON object per target.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import atheris

UNTOUCHED = [
    "seit.shards.packed_kernels",
    "seit.shards.context.kernels",
    "seit.shards.context.fit_kernels",
    "seit.testing",
]
"""Modules compiled by numba, which cannot be instrumented; and the test helpers."""
sys.path.insert(0, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["seit"], exclude=UNTOUCHED):
    from fuzz import targets
    from fuzz.seeds import write_dictionary, write_seeds

MAX_INPUT_BYTES = 12_288
MAX_MEMORY_MIB = 2_048
MAX_SECONDS_PER_INPUT = 10
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Folder for files of inputs: libFuzzer ends a process without cleanup."""
WEIGHTS = {"official": 2, "card": 2, "zarr": 2, "context": 2}
"""Targets that get more time than the others."""


def main() -> int:
    """Fuzz, or repeat one input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=["all", *targets.TARGETS])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--input", type=Path)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.input:
        targets.run(targets.TARGETS[arguments.target], arguments.input.read_bytes())
        return 0
    if arguments.inside:
        fuzz(arguments.target, arguments.work, arguments.seconds)
    names = [*targets.TARGETS] if arguments.target == "all" else [arguments.target]
    share = arguments.seconds / sum(WEIGHTS.get(name, 1) for name in names)
    reports = [
        supervise(name, arguments.work, round(share * WEIGHTS.get(name, 1))) for name in names
    ]
    versions = {name: version(name) for name in ("atheris", "numpy", "numba", "torch")}
    total = sum(report["executions"] for report in reports)
    print(json.dumps({"executions": total, "python": sys.version.split()[0], **versions}))
    return int(any(report["findings"] for report in reports))


def fuzz(target: str, work: Path, seconds: int) -> None:
    """Fuzz in this process, which libFuzzer ends."""
    corpus = work / target
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        write_seeds(target, corpus)
    words = work / "words.dict"
    write_dictionary(words)
    options = [
        str(corpus),
        f"-dict={words}",
        f"-artifact_prefix={work}/{target}-",
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-rss_limit_mb={MAX_MEMORY_MIB}",
        f"-timeout={MAX_SECONDS_PER_INPUT}",
        "-print_final_stats=1",
        "-verbosity=1",
    ]
    function = targets.TARGETS[target]
    atheris.Setup([sys.argv[0], *options], lambda data: targets.run(function, data))
    atheris.Fuzz()


def supervise(target: str, work: Path, seconds: int) -> dict[str, object]:
    """Fuzz in separate processes until the time is up, and continue after findings."""
    work.mkdir(parents=True, exist_ok=True)
    before = set(work.glob(f"{target}-*"))
    start, executions = time.monotonic(), 0
    runs = 0
    while (left := round(seconds - (time.monotonic() - start))) > 1 and runs < 20:
        command = [sys.executable, __file__, target, "--work", str(work), "--inside"]
        log = work / f"{target}.log"
        with log.open("w") as file, tempfile.TemporaryDirectory(dir=MEMORY) as scratch:
            subprocess.run(
                [*command, "--seconds", str(left)],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": scratch},
                check=False,
            )
        runs += 1
        text = log.read_text(errors="replace")
        found = re.findall(r"number_of_executed_units: +([0-9]+)|^#([0-9]+)\b", text, re.MULTILINE)
        done = max((int(first or second) for first, second in found), default=0)
        if not done:
            sys.exit(f"{target} never ran; see {log}")
        executions += done
    findings = sorted(path.name for path in set(work.glob(f"{target}-*")) - before)
    elapsed = time.monotonic() - start
    report = {
        "target": target,
        "executions": executions,
        "seconds": round(elapsed),
        "per_second": round(executions / elapsed),
        "corpus": len([*(work / target).iterdir()]),
        "findings": findings,
    }
    print(json.dumps(report), flush=True)
    return report


if __name__ == "__main__":
    sys.exit(main())
