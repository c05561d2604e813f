r"""Measure the cost of the training loop against a bare loop of the same network; prints JSON.

    uv run python tools/bench/train.py STORE --recipe small-cpu --steps 100 --rounds 3
    uv run python tools/bench/train.py STORE --recipe seit-vit-base --batch-size 256 \
        --compile --peak-tflops 989 --pixels-peer photos/

`bare` is forward, loss, backward and optimizer step on one ready batch. `trained` is
`seit.training` of the same network, with reading, augmentation, averaged weights, clipping and log,
without evaluations and checkpoints; the first fifth of its steps, which includes compilation, does
not count. --peak-tflops is the peak of the device; the FLOPs of forward and backward per step time
then give its utilization.

--pixels-peer FOLDER also measures the same backbone on 224 px crops of the JPEG files in
FOLDER/train/<class>/, loaded by `timm.data` with --workers processes: random resized crop, flip and
color jitter, the defaults of timm's train.py. `pixels_bare` uses one ready batch, `pixels` that
pipeline; both have the loop of `bare`, without averaged weights and clipping. If FOLDER does not
exist, --render N pictures of --render-size are made.
"""

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import timm.data
import timm.layers
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from seit.augment import PixelAugment, TokenAugment
from seit.config import build, read_yaml
from seit.demo import write_corpus
from seit.devices import choose_device
from seit.models import build_backbone
from seit.recipes import find_recipe
from seit.shards import Store, open_store
from seit.training import TrainConfig, train
from seit.training.feeds import make_feed
from seit.training.losses import classification_loss
from seit.training.networks import build_model, pixel_stem
from seit.training.optimizer import make_optimizer
from seit.training.precision import choose_attention, make_autocast
from seit.training.run import METRICS_NAME
from seit.training.versions import environment

PIXELS, PATCH = 224, 8
"""Side of the peer's pictures, and of the pixels per token of a 28×28 grid."""
UNCOUNTED = 5
_NEVER = 1 << 30

Loss = Callable[[Tensor], Tensor]


class Loop:
    """A loop of forward, loss, backward and update, and nothing else."""

    def __init__(self, model: nn.Module, config: TrainConfig, device: torch.device) -> None:
        self.device = device
        self.model = model.to(device)
        choose_attention(self.model, config, device)
        self.network = torch.compile(self.model) if config.run.compile else self.model
        self.optimizer = make_optimizer(self.model, config.optim, device)
        self.autocast = make_autocast(config, device)

    def step(self, inputs: Tensor, loss: Loss) -> None:
        """Run one step: inputs (B, C, h, w), a loss of float32 logits (B, N)."""
        with self.autocast:
            logits = self.network(inputs)
        loss(logits.float()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def seconds(self, batches: Iterator[tuple[Tensor, Loss]], steps: int) -> tuple[float, float]:
        """Time steps after a warm-up; return seconds, and seconds of waiting for data."""
        for inputs, loss in itertools.islice(batches, UNCOUNTED):
            self.step(inputs, loss)
        self._finish()
        waited, started = 0.0, time.perf_counter()
        for _ in range(steps):
            mark = time.perf_counter()
            inputs, loss = next(batches)
            waited += time.perf_counter() - mark
            self.step(inputs, loss)
        self._finish()
        return time.perf_counter() - started, waited

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class Tokens:
    """Step time of the recipe's network on one batch of a store's tokens."""

    def __init__(self, config: TrainConfig, store: Store, device: torch.device) -> None:
        feed = make_feed(store, config, device)
        self.config, self.num_classes = config, len(store.classes)
        self.augment: TokenAugment | PixelAugment = feed.augment
        self.loop = Loop(self._model(), config, device)
        batches = feed.train_batches(0)
        augmented = next(batches).augmented
        batches.close()
        self._ready = augmented.inputs, lambda x: classification_loss(x, augmented, config.loss)

    def _model(self) -> nn.Module:
        return build_model(
            self.config.model, self.augment, num_classes=self.num_classes, patch_size=PATCH
        )

    def run(self, steps: int) -> None:
        """Run some steps."""
        for _ in range(steps):
            self.loop.step(*self._ready)

    def seconds(self, steps: int) -> float:
        """Return the seconds of some steps."""
        return self.loop.seconds(itertools.repeat(self._ready), steps)[0]

    def flops(self) -> int:
        """Count forward and backward FLOPs per sample."""
        timm.layers.set_fused_attn(False)  # the counter does not see its fused kernel
        with torch.device("meta"):
            model = self._model()
            inputs = torch.empty(2, self.augment.channels, *self.augment.output_size)
        with FlopCounterMode(display=False) as counter:
            model(inputs).sum().backward()
        timm.layers.set_fused_attn(True)
        return int(counter.get_total_flops()) // 2


class Pixels:
    """Step time of the recipe's network on crops of JPEG files, through timm's pipeline."""

    def __init__(
        self, config: TrainConfig, folder: Path, device: torch.device, *, workers: int
    ) -> None:
        dataset = timm.data.create_dataset("", str(folder), split="train", is_training=True)
        self._loader = timm.data.create_loader(
            dataset,
            input_size=(3, PIXELS, PIXELS),
            batch_size=config.data.batch_size,
            is_training=True,
            use_prefetcher=device.type == "cuda",
            num_workers=workers,
            color_jitter=0.4,
            interpolation="random",
            device=device,
            pin_memory=device.type == "cuda",
            use_multi_epochs_loader=True,
        )
        if not len(self._loader):
            raise SystemExit(f"{folder} has {len(dataset)} training pictures, fewer than a batch")
        self.smoothing = config.loss.label_smoothing
        model = build_backbone(
            config.model.name,
            channels=3,
            input_size=(PIXELS, PIXELS),
            stem=pixel_stem(config.model, (PIXELS, PIXELS), PATCH),
            num_classes=len(dataset.reader.class_to_idx),
            **config.model.timm_kwargs(),
        )
        self.loop = Loop(model, config, device)
        self._batches = self._forever()
        self._ready = next(self._batches)

    def _forever(self) -> Iterator[tuple[Tensor, Loss]]:
        while True:
            for inputs, labels in self._loader:
                yield inputs, self._loss(labels)

    def _loss(self, labels: Tensor) -> Loss:
        return lambda x: F.cross_entropy(x, labels, label_smoothing=self.smoothing)

    def bare_seconds(self, steps: int) -> float:
        """Return the seconds of some steps on one batch."""
        return self.loop.seconds(itertools.repeat(self._ready), steps)[0]

    def fed_seconds(self, steps: int) -> tuple[float, float]:
        """Return the seconds of steps on the pipeline's batches, and of waiting for data."""
        return self.loop.seconds(self._batches, steps)


def trained(config: TrainConfig, store: Store) -> tuple[float, float]:
    """Return samples/s of a run after its first fifth, and the share of waiting."""
    with tempfile.TemporaryDirectory() as folder:
        train(config, store, out=Path(folder) / "run")
        text = (Path(folder) / "run" / METRICS_NAME).read_text()
    lines = [line for line in map(json.loads, text.splitlines()) if line["split"] == "train"]
    samples = [line["step"] * config.data.batch_size for line in (lines[0], lines[-1])]
    busy = [
        count / line["samples_per_second"]
        for count, line in zip(samples, (lines[0], lines[-1]), strict=True)
    ]
    waited = [
        line["data_wait_fraction"] * seconds
        for line, seconds in zip((lines[0], lines[-1]), busy, strict=True)
    ]
    seconds = busy[1] - busy[0]
    return (samples[1] - samples[0]) / seconds, (waited[1] - waited[0]) / seconds


def peer_round(peer: Pixels, steps: int, batch: int) -> dict[str, float]:
    """Measure the pixel peer with and without its pipeline."""
    alone = peer.bare_seconds(steps)
    fed, waited = peer.fed_seconds(steps)
    return {
        "pixels_bare_samples_per_second": steps * batch / alone,
        "pixels_samples_per_second": steps * batch / fed,
        "pixels_data_wait_fraction": waited / fed,
        "pixels_lost_to_data_fraction": max(0.0, 1 - alone / fed),
    }


def recipe_config(
    recipe: str, *, steps: int, batch_size: int | None, device: str = "cpu", compiled: bool = False
) -> TrainConfig:
    """Return a recipe for some steps without evaluations and checkpoints."""
    config = build(TrainConfig, read_yaml(find_recipe(recipe).path), origin="recipe")
    return replace(
        config,
        data=replace(config.data, batch_size=batch_size or config.data.batch_size),
        schedule=replace(config.schedule, steps=steps),
        run=replace(
            config.run,
            device=device,
            compile=compiled,
            log_every=max(1, steps // 5),
            eval_every=_NEVER,
            checkpoint_every=_NEVER,
            loggers=(),
        ),
    )


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store")
    parser.add_argument("--recipe", default="small-cpu")
    parser.add_argument("--steps", type=int, default=100, help="at least 2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--peak-tflops", type=float)
    parser.add_argument("--pixels-peer", type=Path, metavar="FOLDER")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--render", type=int, default=2048)
    parser.add_argument(
        "--render-size", type=int, default=448, help="default: about as many pixels as in ImageNet"
    )
    arguments = parser.parse_args()
    store, device = open_store(arguments.store), choose_device(arguments.device)
    steps = arguments.steps
    config = recipe_config(
        arguments.recipe,
        steps=steps,
        batch_size=arguments.batch_size,
        device=arguments.device,
        compiled=arguments.compile,
    )
    bare, batch, peer = Tokens(config, store, device), config.data.batch_size, None
    if arguments.pixels_peer:
        if not arguments.pixels_peer.exists():
            write_corpus(
                arguments.pixels_peer,
                num_train=arguments.render,
                num_val=10,
                size=arguments.render_size,
            )
        peer = Pixels(config, arguments.pixels_peer, device, workers=arguments.workers)
    rounds = []
    for _ in range(arguments.rounds):
        alone = bare.seconds(steps)
        rate, waiting = trained(config, store)
        figures = {
            "bare_samples_per_second": steps * batch / alone,
            "trained_samples_per_second": rate,
            "data_wait_fraction": waiting,
        }
        rounds.append({**figures, **(peer_round(peer, steps, batch) if peer else {})})
    middle = {name: median(one[name] for one in rounds) for name in rounds[0]}
    overhead = [
        one["bare_samples_per_second"] / one["trained_samples_per_second"] - 1 for one in rounds
    ]
    report: dict[str, Any] = {
        "benchmark": "train",
        "recipe": arguments.recipe,
        "model": config.model.name,
        "batch_size": batch,
        "steps": steps,
        "compile": config.run.compile,
        "rounds": rounds,
        **middle,
        "overhead": median(overhead),
        "gflops_per_sample": bare.flops() / 1e9,
        "environment": {**environment(device), "cores": os.cpu_count()},
    }
    if peer:
        report["workers"] = arguments.workers
        report["trained_over_pixels"] = (
            middle["trained_samples_per_second"] / middle["pixels_samples_per_second"]
        )
    if arguments.peak_tflops:
        used = bare.flops() * middle["trained_samples_per_second"]
        report["flop_utilization"] = used / (arguments.peak_tflops * 1e12)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
