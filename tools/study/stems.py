"""Compare the stems ``up`` and ``later`` of hierarchical backbones by top-1; prints JSON.

    uv run python tools/study/stems.py STORE --backbones convnext regnet --steps 300 --seeds 0 1

Small networks are trained on the same batches: both entries for equal steps, and the faster one
also for as many steps as fit in the time of the slower one. Times are CPU times of one thread,
measured in alternating steps, so that other load on the machine counts for neither.
"""

import argparse
import json
import math
import sys
import time
from itertools import islice
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seit.augment import TokenAugment
from seit.config import build, read_yaml
from seit.models import build_backbone, count_parameters
from seit.recipes import find_recipe
from seit.shards import Store, open_store
from seit.stream import loader
from seit.training import TrainConfig
from seit.training.versions import environment

BACKBONES: dict[str, tuple[str, dict[str, Any]]] = {
    "convnext": ("convnext_atto", {"dims": (16, 32, 64, 128), "depths": (1, 1, 2, 1)}),
    "regnet": (
        "regnetx_002",
        {"depth": 6, "w0": 16, "wa": 16.0, "wm": 2.0, "group_size": 8, "stem_width": 16},
    ),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)},
    ),
}
ENTRIES = ("up", "later")
LEARNING_RATE, WEIGHT_DECAY, SMOOTHING, WARMUP_SHARE = 1e-3, 0.05, 0.1, 0.1


class Study:
    """The store, and the settings shared by all networks."""

    def __init__(self, store: Store, batch_size: int) -> None:
        config = build(
            TrainConfig, read_yaml(find_recipe("small-cpu").path), origin="the recipe small-cpu"
        )
        grid = store.card.tokenizer.grid
        self.store = store
        self.batch_size = batch_size
        self.augment = TokenAugment(torch.from_numpy(store.codebook), grid, config.augment)

    def model(self, backbone: str, entry: str, seed: int) -> nn.Module:
        """Build an untrained network."""
        torch.manual_seed(seed)
        name, sizes = BACKBONES[backbone]
        return build_backbone(
            name,
            channels=self.augment.channels,
            input_size=self.augment.output_size,
            num_classes=len(self.store.classes),
            stem=entry,
            **sizes,
        )

    def train(self, model: nn.Module, steps: int, seed: int) -> list[float]:
        """Train a network; return the seconds of each step's forward and backward pass."""
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
        batches = loader(self.store["train"], batch_size=self.batch_size, seed=seed).steps(0)
        seconds = []
        model.train()
        for step, batch in enumerate(islice(batches, steps)):
            mixed = self.augment(
                batch.tokens, batch.labels, positions=batch.positions, seed=seed, epoch=batch.epoch
            )
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * _rate(step / steps)
            started = time.process_time()
            logits = model(mixed.inputs)
            own, partner = (
                F.cross_entropy(logits, labels, reduction="none", label_smoothing=SMOOTHING)
                for labels in (mixed.labels, mixed.partner_labels)
            )
            (mixed.weight * own + (1 - mixed.weight) * partner).mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seconds.append(time.process_time() - started)
        return seconds

    @torch.inference_mode()
    def top1(self, model: nn.Module) -> float:
        """Return a network's top-1 on the val split."""
        model.eval()
        right: list[Tensor] = []
        for batch in loader(self.store["val"], batch_size=256, shuffle=False).epoch(0):
            logits = model(self.augment.evaluate(batch.tokens))
            right.append(logits.argmax(dim=1) == batch.labels)
        return torch.cat(right).float().mean().item()

    def seconds_per_step(self, backbone: str) -> dict[str, float]:
        """Measure the step times of both entries, alternating."""
        models = {entry: self.model(backbone, entry, 0) for entry in ENTRIES}
        rounds = [{entry: self.train(models[entry], 2, 0)[1] for entry in ENTRIES} for _ in "12345"]
        return {entry: median(each[entry] for each in rounds) for entry in ENTRIES}

    def row(self, backbone: str, entry: str, steps: int, seeds: list[int]) -> dict[str, Any]:
        """Train and evaluate one entry with each seed."""
        top1, seconds = [], []
        for seed in seeds:
            model = self.model(backbone, entry, seed)
            seconds.append(sum(self.train(model, steps, seed)))
            top1.append(self.top1(model))
        return {
            "backbone": backbone,
            "entry": entry,
            "steps": steps,
            "parameters": count_parameters(model),
            "cpu_seconds": round(mean(seconds), 1),
            "top1": mean(top1),
            "top1_by_seed": dict(zip(map(str, seeds), top1, strict=True)),
        }


def _rate(progress: float) -> float:
    """Return the learning rate of a step: linear warm-up, then a cosine."""
    if progress < WARMUP_SHARE:
        return progress / WARMUP_SHARE
    return (1 + math.cos(math.pi * (progress - WARMUP_SHARE) / (1 - WARMUP_SHARE))) / 2


def main() -> None:
    """Run the study and print its JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--backbones", nargs="+", choices=[*BACKBONES], default=["convnext"])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    study = Study(open_store(arguments.store), arguments.batch_size)
    rows = []
    for backbone in arguments.backbones:
        seconds = study.seconds_per_step(backbone)
        slow, fast = sorted(ENTRIES, key=seconds.__getitem__, reverse=True)
        more = round(arguments.steps * seconds[slow] / seconds[fast])
        for entry, steps in [(slow, arguments.steps), (fast, arguments.steps), (fast, more)]:
            row = study.row(backbone, entry, steps, arguments.seeds)
            rows.append({**row, "cpu_seconds_per_step": round(seconds[entry], 4)})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    report = {
        "study": "stems",
        "store": study.store.card.tokenizer.name,
        "batch_size": arguments.batch_size,
        "rows": rows,
        "environment": environment(torch.device("cpu")),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
