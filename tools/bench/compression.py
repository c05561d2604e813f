"""Compress a run by every method, and print bytes, times and accuracy beside their floors, as JSON.

    uv run python tools/bench/compression.py RUN STORE OUT --rows int8 w4 w2 … --seeds 0 1 2

Each row and seed is a run folder of OUT; finished ones are reused. Top-1 is of the whole validation
split, by the file that is deployed. Times are CPU times of one thread, of a batch of 64.
"""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import seit
from seit.compression import CompressResult
from seit.devices import choose_device
from seit.training import Run, environment

HALF_OF_PARTS = {"compression.pattern": ["heads", "mlp"], "compression.sparsity": [0.25, 0.5]}


@dataclass(frozen=True)
class Row:
    """One way to compress, and what is asked of it.

    Attributes:
        method: method.
        changes: settings.
        trains: whether seeds matter.
        most_bytes: bytes, as a fraction of those before, at most.
        most_drop: drop of top-1, 0–1, at most.
        least_agreement: agreement with the run, at least.
    """

    method: str
    changes: dict[str, Any] = field(default_factory=dict)
    trains: bool = False
    most_bytes: float | None = None
    most_drop: float | None = None
    least_agreement: float | None = None


def _pruned(share: float, drop: float) -> Row:
    return Row("prune", {"compression.sparsity": [share]}, trains=True, most_drop=drop)


ROWS = {
    "int8": Row("int8", most_bytes=0.36, most_drop=0.005, least_agreement=0.985),
    "int8-static": Row("int8-static", most_bytes=0.34, most_drop=0.008, least_agreement=0.96),
    "w4": Row("w4", most_bytes=0.16, most_drop=0.008),
    "w3": Row("w3", most_drop=0.01),
    "w2": Row("w2", most_drop=0.07),
    "w4-nearest": Row("w4", {"compression.rounding": "nearest"}),
    "w3-nearest": Row("w3", {"compression.rounding": "nearest"}),
    "w2-nearest": Row("w2", {"compression.rounding": "nearest"}),
    "mixed": Row("mixed", {"compression.budget": 0.1}),
    "qat-2": Row("qat", {"compression.bits": 2}, trains=True),
    "prune-50": _pruned(0.5, 0.01),
    "prune-70": _pruned(0.7, 0.03),
    "prune-2:4": Row("prune", {"compression.pattern": ["2:4"]}, trains=True, most_drop=0.02),
    "parts": Row("prune", HALF_OF_PARTS, trains=True, most_drop=0.03),
    "student": Row("distill", {"model.embed_dim": 64}, trains=True),
    "student-alone": Row("distill", {"model.embed_dim": 64, "distill.alpha": 0.0}, trains=True),
}


def measure(name: str, row: Row, run: Path, store: str, out: Path, seeds: list[int]) -> Any:
    """Return the figures of a row: means over seeds, and which floors they keep."""
    results = []
    for seed in seeds if row.trains else seeds[:1]:
        result = seit.compress(
            run,
            store=store,
            out=out / name.replace(":", "-") / f"seed-{seed}",
            method=row.method,
            resume=True,
            seed=seed,
            **row.changes,
        )
        results.append(result)
    figures = {
        "top1_before": results[0].top1_before,
        **{
            key: fmean(getattr(one, key) for one in results)
            for key in ("top1", "agreement", "bytes", "bytes_before", "parameters", "seconds")
        },
        "top1_std": stdev([one.top1 for one in results]) if len(results) > 1 else None,
        "seeds": len(results),
        "bytes_ratio": results[0].bytes / results[0].bytes_before,
        "cpu_ms_64": _time(results),
        "flops": results[0].flops,
        "latency": Run.open(results_folder(out, name, seeds)).info.get("latency"),
    }
    drop = figures["top1_before"] - figures["top1"]
    checks = {
        "bytes": (row.most_bytes, figures["bytes_ratio"] <= (row.most_bytes or 0)),
        "drop": (row.most_drop, drop <= (row.most_drop or 0)),
        "agreement": (row.least_agreement, figures["agreement"] >= (row.least_agreement or 0)),
    }
    holds = {key: kept for key, (floor, kept) in checks.items() if floor is not None}
    return {**figures, "drop": drop, "holds": holds}


def results_folder(out: Path, name: str, seeds: list[int]) -> Path:
    """Return the folder of the first run of a row."""
    return out / name.replace(":", "-") / f"seed-{seeds[0]}"


def _time(results: list[CompressResult]) -> float | None:
    times = [one.latency_ms["64"].cpu_p50 for one in results if one.latency_ms]
    return fmean(times) if times else None


def main() -> None:
    """Measure the chosen rows and print their JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("store")
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    rows = {
        name: measure(
            name, ROWS[name], arguments.run, arguments.store, arguments.out, arguments.seeds
        )
        for name in arguments.rows
    }
    found = {"rows": rows, "environment": environment(choose_device("cpu"))}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
