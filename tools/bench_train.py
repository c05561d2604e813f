"""What the training loop costs beside the network: rates of both, in turns, as JSON.

    uv run python tools/bench_train.py STORE --recipe small-cpu --steps 100 --rounds 3
    uv run python tools/bench_train.py STORE --recipe seit-vit-base --steps 100 --peak-tflops 989

`bare` is forward, loss, backward and AdamW step on one batch that lies ready; `trained` is
`seit.train` of the same network, its reading, augmentation, average of the weights, clipping and
log included, evaluations and checkpoints not. With --peak-tflops, what the device can do at best,
the FLOPs of forward and backward over the time of a step say how much of that is used.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import timm.layers
import torch
from torch.utils.flop_counter import FlopCounterMode

from seit.devices import choose_device
from seit.recipes import find_recipe
from seit.settings import build, read_yaml
from seit.shards import Store, open_store
from seit.train import TrainConfig, TrainResult, train
from seit.train.feeds import TrainBatch, build_model, make_feed
from seit.train.losses import classification_loss
from seit.train.optim import make_optimizer
from seit.train.precision import make_autocast
from seit.train.run import environment

_NEVER = 1 << 30


class Bare:
    """A network that is trained on one batch again and again."""

    def __init__(self, config: TrainConfig, store: Store, device: torch.device) -> None:
        feed = make_feed(store, config, device)
        self.config, self.device = config, device
        self.model = build_model(
            config.model, feed.augment, num_classes=len(store.classes), patch_size=8
        ).to(device)
        self.optimizer = make_optimizer(self.model, config.optim, device)
        self.autocast = make_autocast(config, device)
        batches = feed.train_batches(0)
        self.batch: TrainBatch = next(batches)
        batches.close()

    def step(self) -> None:
        """Forward, loss, backward, update."""
        with self.autocast:
            logits = self.model(self.batch.augmented.inputs)
        classification_loss(logits.float(), self.batch.augmented, self.config.loss).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def seconds(self, steps: int) -> float:
        """How long some steps take, after a few that do not count."""
        for _ in range(5):
            self.step()
        self._wait()
        started = time.perf_counter()
        for _ in range(steps):
            self.step()
        self._wait()
        return time.perf_counter() - started

    def flops(self) -> int:
        """FLOPs of forward and backward of a batch."""
        timm.layers.set_fused_attn(False)  # whose fused kernel the counter does not see
        with FlopCounterMode(display=False) as counter:
            logits = self.model(self.batch.augmented.inputs.float())
            logits.sum().backward()
        self.optimizer.zero_grad(set_to_none=True)
        timm.layers.set_fused_attn(True)
        return counter.get_total_flops()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def trained(config: TrainConfig, store: Store) -> TrainResult:
    """A run of the same network."""
    with tempfile.TemporaryDirectory() as folder:
        return train(config, store, out=Path(folder) / "run")


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--recipe", default="small-cpu")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--peak-tflops", type=float)
    arguments = parser.parse_args()
    store, device = open_store(arguments.store), choose_device(arguments.device)
    config = build(TrainConfig, read_yaml(find_recipe(arguments.recipe).path), origin="recipe")
    quiet = {"eval_every": _NEVER, "checkpoint_every": _NEVER, "loggers": ()}
    config = replace(
        config,
        data=replace(config.data, batch_size=arguments.batch_size or config.data.batch_size),
        schedule=replace(config.schedule, steps=arguments.steps),
        run=replace(config.run, device=arguments.device, **quiet),
    )
    bare, batch = Bare(config, store, device), config.data.batch_size
    rounds = []
    for _ in range(arguments.rounds):
        alone = bare.seconds(arguments.steps)
        result = trained(config, store)
        rounds.append(
            {
                "bare_samples_per_second": arguments.steps * batch / alone,
                "trained_samples_per_second": result.samples_per_second,
                "data_wait_fraction": result.data_wait_fraction,
            }
        )
    middle = {name: median(one[name] for one in rounds) for name in rounds[0]}
    overhead = [
        one["bare_samples_per_second"] / one["trained_samples_per_second"] - 1 for one in rounds
    ]
    report: dict[str, Any] = {
        "benchmark": "train",
        "recipe": arguments.recipe,
        "model": config.model.name,
        "batch_size": batch,
        "steps": arguments.steps,
        "rounds": rounds,
        **middle,
        "overhead": median(overhead),
        "environment": environment(device),
    }
    if arguments.peak_tflops:
        used = bare.flops() / batch * middle["trained_samples_per_second"]
        report["flop_utilisation"] = used / (arguments.peak_tflops * 1e12)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
