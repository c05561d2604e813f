"""Compare 2:4 sparse with dense matrix products on a CUDA device, forward only; prints JSON.

    uv run python tools/bench/sparsity.py

Multiplies the four matrices of a ViT-B block by 64 samples of 197 tokens, bfloat16. Dense and
sparse alternate. Times are medians over rounds of queued calls, so host time shows only when it
exceeds device time (`host_ms` is the time to queue alone). `theory` is the saving of half of the
weights if nothing else cost time. Errors are the largest distance to the float64 product of the
same bfloat16 numbers, over its RMS.

Unstructured masks are not timed: dense products do not depend on the values.
"""

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.sparse import to_sparse_semi_structured

from seit.training.sparsity import SparsityConfig, draw_mask
from seit.training.versions import environment

LAYERS = {
    "attn.qkv": (768, 2304),
    "attn.proj": (768, 768),
    "mlp.fc1": (768, 3072),
    "mlp.fc2": (3072, 768),
}
"""Inputs and outputs."""
BATCH, TOKENS = 64, 197
CALLS = 20
CHECKED_ROWS = 1024


def probe_sparse() -> None:
    """Run one small sparse product; it fails if they are not supported."""
    weight = torch.tensor([1, 1, 0, 0], dtype=torch.bfloat16, device="cuda").repeat(128, 32)
    F.linear(torch.ones_like(weight), to_sparse_semi_structured(weight))
    torch.cuda.synchronize()


def milliseconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return milliseconds per call: on the device, and on the host to queue it."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    began = time.perf_counter()
    for _ in range(CALLS):
        work()
    queued = time.perf_counter() - began
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / CALLS, 1000 * queued / CALLS


def error(found: Tensor, expected: Tensor) -> float:
    """Return the largest distance over the RMS of the expected values."""
    distance = (found[: len(expected)].double() - expected).abs().max()
    return float(distance / expected.square().mean().sqrt())


def bench_layer(name: str, inputs: int, outputs: int, rounds: int) -> dict[str, object]:
    """Measure times and errors of one matrix."""
    generator = torch.Generator("cuda").manual_seed(0)
    draw = partial(torch.randn, device="cuda", generator=generator)
    rows = draw(BATCH * TOKENS, inputs).bfloat16()
    mask = draw_mask(
        (outputs, inputs),
        SparsityConfig(share=0.5, pattern="2:4"),
        seed=0,
        layer=f"blocks.0.{name}.weight",
    )
    weight = (draw(outputs, inputs) * inputs**-0.5).bfloat16() * mask.cuda()
    sparse = to_sparse_semi_structured(weight)
    work = {"dense": partial(F.linear, rows, weight), "sparse": partial(F.linear, rows, sparse)}
    expected = rows[:CHECKED_ROWS].double() @ weight.double().T
    errors = {kind: error(run(), expected) for kind, run in work.items()}
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in work}
    for run in work.values():
        milliseconds(run)
    for _ in range(rounds):
        for kind, run in work.items():
            times[kind].append(milliseconds(run))
    median = {
        kind: [statistics.median(part) for part in zip(*found, strict=True)]
        for kind, found in times.items()
    }
    return {
        "layer": name,
        "inputs": inputs,
        "outputs": outputs,
        "rows": len(rows),
        "backend": type(sparse).__name__,
        "dense_ms": median["dense"][0],
        "sparse_ms": median["sparse"][0],
        "sparse_ms_range": [pick(device for device, _ in times["sparse"]) for pick in (min, max)],
        "dense_ms_range": [pick(device for device, _ in times["dense"]) for pick in (min, max)],
        "host_ms": {kind: host for kind, (_, host) in median.items()},
        "speed_up": median["dense"][0] / median["sparse"][0],
        "dense_error": errors["dense"],
        "sparse_error": errors["sparse"],
    }


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("sparsity.py needs a CUDA device; torch finds none", file=sys.stderr)
        sys.exit(2)
    warnings.filterwarnings("ignore", message=".*SparseSemiStructuredTensor.*prototype")
    device = torch.device("cuda")
    try:
        probe_sparse()
    except (RuntimeError, NotImplementedError) as failure:
        reason = str(failure).splitlines()[0]
        print(f"no 2:4 sparse product on this device or torch: {reason}", file=sys.stderr)
        sys.exit(1)
    with torch.no_grad():
        layers = [bench_layer(name, *shape, arguments.rounds) for name, shape in LAYERS.items()]
    whole = {kind: sum(layer[f"{kind}_ms"] for layer in layers) for kind in ("dense", "sparse")}
    report = {
        "benchmark": "sparsity",
        "pattern": "2:4",
        "dtype": "bfloat16",
        "rounds": arguments.rounds,
        "calls_a_round": CALLS,
        "layers": layers,
        "all_layers": {
            "dense_ms": whole["dense"],
            "sparse_ms": whole["sparse"],
            "speed_up": whole["dense"] / whole["sparse"],
            "theory": 2.0,
        },
        "environment": {**environment(device), "cuda": torch.version.cuda},
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
