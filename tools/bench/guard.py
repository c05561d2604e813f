"""Guard the speed of what users wait for: small forms of the benchmarks against peers.

    uv run python tools/bench/guard.py            # exit 1 if a ratio fell by more than a fifth
    uv run python tools/bench/guard.py --record   # keep new and lower ratios in guard.json
    uv run python tools/bench/guard.py --only resident context

Each ratio is the peer's CPU time over ours, measured in turns in one call; the least of the rounds
counts, which other load disturbs least. A ratio that fell is measured again before it counts.
Recorded is the lowest of some calls, idle and busy, because load changes ratios where the two sides
depend on caches unequally; to raise one after an improvement, delete its line and record again.
Absolute times are not compared. The cases are the functions of `guard_bench`, whose first lines say
what is compared with what; `bytes_…` are bytes of the other over ours.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path

import torch
from guard_bench import inner, jobs, reading, starts
from guard_bench.case import children

from seit.training.versions import environment

RECORD = Path(__file__).with_suffix(".json")
FALL = 0.2
"""Share of a recorded ratio that may be lost."""
TRIES = 3
CASES = {
    case.__name__: case
    for case in (
        inner.resident,
        inner.context,
        inner.average,
        reading.resident_loader,
        reading.streaming_packed,
        reading.streaming_context,
        jobs.tokenize_conv,
        jobs.tokenize_patch,
        jobs.train_loop,
        jobs.view_page,
        starts.start_help,
        starts.start_info,
        starts.start_train,
    )
}


def measure(name: str, recorded: float, work: Path) -> float:
    """Return a ratio; measure again if it fell."""
    case = CASES[name](work)
    try:
        found = case.measure()
        for _ in range(1, TRIES):
            if found >= (1 - FALL) * recorded:
                break
            found = case.measure()
    finally:
        case.close()
    return found


def main() -> None:
    """Measure, print JSON, and exit 1 if a ratio fell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record = json.loads(RECORD.read_text())
    recorded = record["ratios"]
    ratios, seconds = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.only:
            started = time.process_time() + children()
            wanted = 0.0 if arguments.record else recorded.get(name, 0.0)
            ratios[name] = round(measure(name, wanted, Path(folder)), 4)
            seconds[name] = round(time.process_time() + children() - started, 1)
            print(f"{name}: {ratios[name]} (recorded {recorded.get(name)})", file=sys.stderr)
    ratios |= {name: round(found, 4) for name, found in inner.codec_bytes().items()}
    if arguments.record:
        lowest = {name: min(recorded.get(name, found), found) for name, found in ratios.items()}
        recorded = {**recorded, **lowest}
        record = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "ratios": recorded,
        }
        RECORD.write_text(json.dumps(record, indent=2) + "\n")
    fallen = [name for name in ratios if ratios[name] < (1 - FALL) * recorded.get(name, 0)]
    report = {
        "benchmark": "guard",
        "ratios": ratios,
        "recorded": recorded,
        "fallen": fallen,
        "cpu_seconds": seconds,
        "environment": environment(torch.device("cpu")),
    }
    print(json.dumps(report, indent=2))
    sys.exit(1 if fallen else 0)


if __name__ == "__main__":
    main()
