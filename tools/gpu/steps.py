"""Training steps of ViTs from tokens, or from JPEG files (--pixels); prints one JSON object each.

    uv run python tools/gpu/steps.py --work DIR

Each entry is a run of `seit.training` with reading, augmentation, averaged weights and log, without
evaluations: its first fifth, which includes compilation, does not count. `utilization` is the FLOPs
of forward and backward over the step time, as a share of what a large matrix product reaches in the
same precision on this device.
"""

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import seit
from seit.config import build, read_yaml
from seit.demo import write_corpus
from seit.recipes import find_recipe
from seit.training import TrainConfig

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.train import Pixels, Tokens, trained

BASE, SMALL = "vit_base_patch16_224", "vit_small_patch16_224"
PICTURES, PICTURE_SIZE = 2048, 256
STEPS_OF = {256: 60, 512: 40, 1024: 30}
_NEVER = 1 << 30


@dataclass(frozen=True)
class Case:
    """A run to time: a network, a batch and how it is compiled, None for eager."""

    model: str
    batch: int
    compiled: str | None = None


def cases() -> Iterator[Case]:
    """Yield the runs, the most telling first."""
    yield Case(BASE, 256)
    yield Case(BASE, 256, "blocks")
    yield Case(BASE, 1024, "blocks")
    yield Case(BASE, 1024)
    yield Case(BASE, 1024, "network")
    yield Case(SMALL, 1024, "blocks")
    yield Case(SMALL, 1024)
    yield Case(BASE, 512, "blocks")
    yield Case(SMALL, 256, "blocks")


def matrix_ceiling(device: torch.device) -> float:
    """Return the FLOP/s of a large square matrix product: bfloat16 on CUDA, else float32."""
    on_cuda = device.type == "cuda"
    side, kind = (8192, torch.bfloat16) if on_cuda else (1024, torch.float32)
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        for _ in range(5):
            a @ b
        if on_cuda:
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - started) / 5)
    return 2 * side**3 / best


def config_of(case: Case, device: torch.device, *, small: bool) -> TrainConfig:
    """Return the recipe of SeiT's ViT-B with the network, batch and compilation of a case."""
    config = build(TrainConfig, read_yaml(find_recipe("seit-vit-base").path), origin="recipe")
    size = {"embed_dim": 32, "depth": 2, "num_heads": 2} if small else {}
    steps = 10 if small else STEPS_OF[case.batch]
    run = replace(
        config.run,
        device=str(device.type),
        compile=case.compiled is not None,
        compile_scope=case.compiled or "network",
        log_every=steps // 5,
        eval_every=_NEVER,
        checkpoint_every=_NEVER,
        loggers=(),
    )
    return replace(
        config,
        model=replace(config.model, name=case.model, **size),
        data=replace(config.data, batch_size=case.batch),
        schedule=replace(config.schedule, steps=steps),
        run=run,
    )


def time_case(
    case: Case, store: Any, device: torch.device, ceiling: float, *, small: bool
) -> dict[str, Any]:
    """Return the figures of a run."""
    config = config_of(case, device, small=small)
    started = time.perf_counter()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    rate, waiting = trained(config, store)
    memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    flops = Tokens(config, store, device).flops()
    return {
        "model": case.model,
        "batch": case.batch,
        "compiled": case.compiled,
        "images_per_second": round(rate, 1),
        "data_wait_fraction": round(waiting, 4),
        "gflops_per_image": round(flops / 1e9, 2),
        "utilization": round(flops * rate / ceiling, 4),
        "peak_memory_bytes": memory,
        "seconds": round(time.perf_counter() - started, 1),
    }


def time_pixels(pictures: Path, device: torch.device, *, small: bool) -> dict[str, Any]:
    """Return the rates of the same network from JPEG files, with and without their pipeline."""
    case = Case(BASE, 8 if small else 256)
    config = config_of(case, device, small=small)
    peer = Pixels(config, pictures, device, workers=os.cpu_count() or 1)
    steps = 3 if small else 60
    alone = peer.bare_seconds(steps)
    fed, waited = peer.fed_seconds(steps)
    return {
        "model": case.model,
        "batch": case.batch,
        "workers": os.cpu_count(),
        "images_per_second_ready": round(steps * case.batch / alone, 1),
        "images_per_second": round(steps * case.batch / fed, 1),
        "data_wait_fraction": round(waited / fed, 4),
    }


def main() -> None:
    """Time all cases and print their JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pixels", action="store_true")
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    small, pictures = arguments.small, arguments.work / "pictures"
    if not pictures.exists():
        count = 64 if small else PICTURES
        write_corpus(pictures, num_train=count, num_val=10, size=PICTURE_SIZE)
    if arguments.pixels:
        print(json.dumps(time_pixels(pictures, device, small=small)), flush=True)
        return
    path = arguments.work / "store"
    seit.tokenize(pictures, out=path, tokenizer="patch-pca-vq", size=256)
    store, ceiling = seit.open(path), matrix_ceiling(device)
    print(json.dumps({"matrix_tflops": round(ceiling / 1e12, 2)}), flush=True)
    chosen = [Case(SMALL, 8), Case(SMALL, 8, "blocks")] if small else list(cases())
    for case in chosen:
        print(json.dumps(time_case(case, store, device, ceiling, small=small)), flush=True)
        torch.compiler.reset()
        gc.collect()


if __name__ == "__main__":
    main()
