"""Guard the inner loops against their peers: small forms of the benchmarks, in one process.

    uv run python tools/bench/guard.py            # exit 1 if a ratio fell by more than a fifth
    uv run python tools/bench/guard.py --record   # keep these ratios in guard.json

Each ratio is the peer's CPU time over ours for the same work, measured in turns; the least of
the rounds counts, which other load disturbs least. Absolute times are not compared.

* `resident`: rows of packed ids in random order, against a gather of numpy from raw uint16 ids.
* `context`: entropy coded grids back to ids, against gzip of the raw ids.
* `average`: an update of the averaged weights of a small ViT, against timm's.
"""

import argparse
import gzip
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from timm.utils import ModelEmaV3

from seit.shards import pack
from seit.shards.context.coder import Coder
from seit.shards.context.fit import fit_tables
from seit.stream.packed import unpack_rows
from seit.training.average import WeightAverage

RECORD = Path(__file__).with_suffix(".json")
FALL = 0.2
"""Share of a recorded ratio that may be lost."""
SAMPLES, GRID, CODES, BATCH = 4096, (32, 32), 1024, 256
Pair = tuple[Callable[[], object], Callable[[], object]]
"""Our work and the peer's."""


def smooth_ids(count: int) -> np.ndarray:
    """Return ids (N, H, W) that resemble their neighbors, uint16."""
    walk = np.random.default_rng(0).normal(size=(count, *GRID)).cumsum(1).cumsum(2)
    ranks = walk.reshape(-1).argsort().argsort().reshape(walk.shape)
    return (ranks * CODES // ranks.size).astype(np.uint16)


def resident() -> Pair:
    """Read batches in random order."""
    ids = np.random.default_rng(0).integers(CODES, size=(SAMPLES, GRID[0] * GRID[1]), dtype="u2")
    packed = torch.from_numpy(pack(ids, CODES))
    batches = np.random.default_rng(1).permutation(SAMPLES).reshape(-1, BATCH)
    return (
        lambda: [unpack_rows(packed, b, length=ids.shape[1], num_codes=CODES) for b in batches],
        lambda: [torch.from_numpy(ids[b].astype(np.int16)) for b in batches],
    )


def context() -> Pair:
    """Decode entropy coded grids."""
    ids = smooth_ids(256)
    codebook = np.arange(CODES, dtype=np.float64)[:, None]
    coder = Coder(fit_tables(ids, codebook, total_samples=1_000_000))
    words, sizes = coder.encode(ids.reshape(len(ids), -1), GRID)
    ends = np.cumsum(sizes)
    bounds = np.stack([ends - sizes, ends], axis=1)
    zipped = [gzip.compress(one.tobytes()) for one in ids]
    return (
        lambda: coder.decode(words, bounds, GRID),
        lambda: [np.frombuffer(gzip.decompress(one), np.uint16) for one in zipped],
    )


def average() -> Pair:
    """Update averaged weights."""
    model = timm.create_model("test_vit", num_classes=10)
    own = WeightAverage(model, decay=0.9, use_warmup=True)
    peer = ModelEmaV3(model, decay=0.9, use_warmup=True)
    return (
        lambda: [own.update(model, step=9) for _ in range(50)],
        lambda: [peer.update(model, step=9) for _ in range(50)],
    )


def ratio(pair: Pair, rounds: int) -> float:
    """Return the peer's least CPU time over ours, after one round that does not count."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for work, found in zip(pair, seconds, strict=True):
            started = time.process_time()
            work()
            found.append(time.process_time() - started)
    return min(seconds[1][1:]) / min(seconds[0][1:])


def main() -> None:
    """Measure, print JSON, and exit 1 if a ratio fell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ratios = {one.__name__: ratio(one(), arguments.rounds) for one in (resident, context, average)}
    if arguments.record:
        record = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "ratios": ratios,
        }
        RECORD.write_text(json.dumps(record, indent=2) + "\n")
    recorded = json.loads(RECORD.read_text())["ratios"]
    fallen = [name for name, found in ratios.items() if found < (1 - FALL) * recorded[name]]
    print(json.dumps({"ratios": ratios, "recorded": recorded, "fallen": fallen}, indent=2))
    sys.exit(1 if fallen else 0)


if __name__ == "__main__":
    main()
