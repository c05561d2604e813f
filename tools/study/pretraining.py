"""Test claims of four papers on pre-training on tokens at a small scale; prints JSON.

    uv run python tools/study/pretraining.py STORE TARGET OUT --scale cpu --jobs 2
    uv run python tools/study/pretraining.py STORE TARGET OUT --scale gpu --jobs 12 --device cuda

STORE is used for pre-training without labels. TARGET is another store of the same tokenizer. Parts:

    labels   masked tokens, then fine-tuning, compared with training from scratch, with all, a fifth
             and a twentieth of the labels, for equal steps and for equal epochs (SeiT++)
    sit      recovery, contrast and both; blocks compared with independent tokens (SiT)
    further  on a tenth of TARGET, from masked tokens on STORE: plain and self-distilled, by length
    sparse   masked tokens at 0, 50, 75 and 90 % sparsity, fine-tuned dense; kept sparse; a smaller
             dense network of about the FLOPs of 75 % (SPDF)

Each objective uses the optimizer and the augmentation of its recipe: `mtm-small-cpu`,
`sit-small-cpu`, `further-small-cpu`. The scale sets networks, lengths and the learning rate of
masked tokens.

OUT keeps finished runs and reuses them; runs that others start from come first. With --seconds no
run starts after that time, and rows report their number of seeds.
"""

import argparse
import json
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import torch
from parallel import run_all

from seit.config import build, merge, read_yaml
from seit.models import build_backbone
from seit.pretraining import PretrainConfig, pretrain
from seit.recipes import find_recipe
from seit.report import Series, line_chart
from seit.shards import open_store
from seit.training import TrainConfig, train
from seit.training.flops import TRAINING_FACTOR, count_flops
from seit.training.sparsity import masked_weights
from seit.training.versions import environment

PARTS = ("labels", "sparse", "further", "sit")
FRACTIONS = (1.0, 0.2, 0.05)
FEW = 0.05
"""Share of STORE's labels for fine-tuning after SiT."""
TENTH = 0.1
"""Share of TARGET's pictures and labels."""
SHARES = (0.5, 0.75, 0.9)
LENGTHS = (1, 4, 16)
"""Lengths of further pre-training, in units of the scale's shortest."""


@dataclass(frozen=True)
class Scale:
    """Sizes of networks and runs.

    Attributes:
        stem: stem of the ViT.
        width: embedding dimension of the ViT.
        depth: blocks of the ViT.
        batch: samples per step.
        lr: learning rate of masked tokens.
        steps: steps of masked tokens.
        sit_steps: steps of SiT.
        shortest: least steps of further pre-training.
        fine: steps of fine-tuning.
        target_fine: steps of fine-tuning on TARGET.
        labeled: share of STORE with labels, which `FRACTIONS` refer to; pre-training uses all of
            STORE.
        decoder: width and blocks of the decoder of masked tokens.
    """

    stem: str
    width: int
    depth: int
    batch: int
    lr: float
    steps: int
    sit_steps: int
    shortest: int
    fine: int
    target_fine: int
    labeled: float = 1.0
    decoder: tuple[int, int] = (128, 2)


SCALES = {
    "smoke": Scale("2/2/0", 32, 2, 32, 1e-3, 6, 6, 2, 4, 4),
    "short": Scale("2/2/0", 64, 3, 64, 3e-3, 8000, 800, 150, 1500, 600, 0.1, (64, 1)),
    "cpu": Scale("2/2/0", 128, 4, 64, 2e-3, 12000, 3000, 250, 1500, 1000, 0.1),
    "gpu": Scale("1/1/0", 192, 4, 256, 1e-3, 2500, 1500, 150, 600, 600),
}


@dataclass(frozen=True)
class Job:
    """A run: its name, settings, store and starting point."""

    name: str
    kind: Literal["pretrain", "train"]
    settings: dict[str, Any]
    store: str
    start: str | None = None
    teacher: str | None = None

    @property
    def needs(self) -> set[str]:
        """Runs that must exist first."""
        return {name for name in (self.start, self.teacher) if name is not None}


class Plan:
    """The jobs of a study, without repetition."""

    def __init__(self, scale: Scale, store: str, target: str, device: str) -> None:
        self.scale, self.store, self.target, self.device = scale, store, target, device
        self.jobs: dict[str, Job] = {}

    def add(
        self,
        name: str,
        kind: Literal["pretrain", "train"],
        *settings: dict[str, Any],
        store: str | None = None,
        start: str | None = None,
        teacher: str | None = None,
    ) -> str:
        """Add a job unless it exists, and return its name."""
        if name not in self.jobs:
            merged = merge(*settings)
            self.jobs[name] = Job(name, kind, merged, store or self.store, start, teacher)
        return name

    def base(self, seed: int, steps: int, *, width: int | None = None) -> dict[str, Any]:
        """Return the settings shared by all runs of a seed and a length."""
        scale = self.scale
        width = width or scale.width
        return {
            "model": {
                "name": "vit_tiny_patch16_224",
                "stem": scale.stem,
                "embed_dim": width,
                "depth": scale.depth,
                "num_heads": width // 32,
            },
            "data": {"batch_size": scale.batch},
            "schedule": {"steps": steps, "warmup_steps": max(1, steps // 20), "warmup_lr": 1e-6},
            "run": {
                "seed": seed,
                "device": self.device,
                "eval_every": max(1, steps // 2),
                "checkpoint_every": max(1, steps // 2),
                "log_every": max(1, steps // 20),
                "loggers": [],
            },
        }

    def learn(self, recipe: str, seed: int, steps: int, **kwargs: Any) -> dict[str, Any]:
        """Return a recipe with the network and length of this study, on whole grids."""
        width, depth = self.scale.decoder
        decoder = {
            "decoder_dim": width,
            "decoder_depth": depth,
            "decoder_heads": width // 32,
            "decoder_dropout": 0.0,
            "input_dropout": 0.0,
        }
        return merge(
            read_yaml(find_recipe(recipe).path),
            self.base(seed, steps, **kwargs),
            {"optim": {"lr_batch_size": 0}, "augment": {"crop_size": 8}, "mtm": decoder},
            {"probe": {"samples": 2048, "val_samples": 2048}},
        )

    def masked(self, seed: int, *, share: float = 0.0, width: int | None = None) -> str:
        """Add masked token modeling on STORE."""
        size = f"-width{width}" if width else ""
        return self.add(
            f"mtm{size}-sparse{share:g}-{seed}",
            "pretrain",
            self.learn("mtm-small-cpu", seed, self.scale.steps, width=width),
            {"optim": {"lr": self.scale.lr}},
            {"sparsity": {"share": share, "seed": seed}},
        )

    def fine(
        self,
        name: str,
        seed: int,
        *,
        start: str | None,
        fraction: float | None = None,
        store: str | None = None,
        width: int | None = None,
        share: float = 0.0,
        steps: int | None = None,
    ) -> str:
        """Add training with labels, from a run or from scratch; by default on all labels."""
        steps = steps or (self.scale.fine if store is None else self.scale.target_fine)
        settings = {
            "data": {"fraction": self.scale.labeled if fraction is None else fraction},
            "optim": {
                "lr": 1e-3,
                "lr_batch_size": 0,
                "weight_decay": 0.05,
                "clip_grad": 1.0,
                "layer_decay": 1.0 if start is None else 0.75,
            },
            "schedule": {"min_lr": 1e-5},
            "augment": {
                "crop_size": 8,
                "crop_scale": [0.35, 1.0],
                "swap_prob": 0.0,
                "noise_scale": 0.1,
                "noise_std": 0.1,
                "cutmix_prob": 0.5,
            },
            "ema": {"decay": 0.99, "warmup": True},
            "sparsity": {"share": share, "seed": seed},
        }
        return self.add(
            f"{name}-{seed}",
            "train",
            self.base(seed, steps, width=width),
            settings,
            store=store,
            start=start,
        )


SIT_ROWS: dict[str, dict[str, Any]] = {
    "recon, blocks": {"tasks": ["recon"]},
    "recon, tokens": {"tasks": ["recon"], "corruption": {"kind": "tokens"}},
    "contrast": {"tasks": ["contrast"]},
    "recon + contrast": {"tasks": ["recon", "contrast"]},
}


def plan_labels(plan: Plan, seed: int) -> dict[str, str]:
    """Return the rows of the part, by name, with their jobs."""
    rows = {}
    for fraction in FRACTIONS:
        protocols = {"": plan.scale.fine}
        if fraction < 1:
            protocols[", epochs of all"] = max(1, round(fraction * plan.scale.fine))
        for protocol, steps in protocols.items():
            name = f"{fraction:.0%} of labels{protocol}"
            slug = f"{fraction:g}-epochs" if protocol else f"{fraction:g}"
            fine = partial(
                plan.fine, seed=seed, fraction=fraction * plan.scale.labeled, steps=steps
            )
            rows[f"{name}, scratch"] = fine(f"scratch-{slug}", start=None)
            rows[f"{name}, masked tokens first"] = fine(f"fine-{slug}", start=plan.masked(seed))
    return rows


def plan_sit(plan: Plan, seed: int) -> dict[str, str]:
    """Return the rows: pre-training, and fine-tuning with 5 % of the labels."""
    few = f"{FEW:.0%} of labels"
    rows = {f"scratch, {few}": plan.fine("scratch-few", seed, start=None, fraction=FEW)}
    for row, settings in SIT_ROWS.items():
        slug = row.replace(" ", "").replace(",", "-").replace("+", "-")
        start = plan.add(
            f"sit-{slug}-{seed}",
            "pretrain",
            plan.learn("sit-small-cpu", seed, plan.scale.sit_steps),
            {"sit": settings},
        )
        rows[row] = start
        rows[f"{row}, {few}"] = plan.fine(f"sit-{slug}-fine", seed, start=start, fraction=FEW)
    return rows


def plan_further(plan: Plan, seed: int) -> dict[str, str]:
    """Return the rows, all fine-tuned on the tenth of TARGET seen in pre-training."""
    start, target = plan.masked(seed), plan.target
    fine = partial(plan.fine, seed=seed, store=target, fraction=TENTH)
    rows = {
        "scratch": fine("target-scratch", start=None),
        "not further": fine("target-0", start=start),
    }
    for length in LENGTHS:
        steps = length * plan.scale.shortest
        shared = (
            plan.learn("further-small-cpu", seed, steps),
            {"data": {"fraction": TENTH}, "schedule": {"warmup_steps": 0}},
        )
        plain = plan.add(
            f"further-plain-{steps}-{seed}",
            "pretrain",
            *shared,
            {"objective": "mtm"},
            store=target,
            start=start,
        )
        taught = plan.add(
            f"further-taught-{steps}-{seed}",
            "pretrain",
            *shared,
            store=target,
            start=start,
            teacher=plain,
        )
        for name, run in (("plain", plain), ("self-distilled", taught)):
            rows[f"{name}, {steps:,} steps"] = fine(f"target-{name}-{steps}", start=run)
    return rows


def plan_sparse(plan: Plan, seed: int) -> dict[str, str]:
    """Return the rows, fine-tuned with all labels."""
    rows = {"dense": plan.fine("fine-1", seed, start=plan.masked(seed))}
    for share in SHARES:
        start = plan.masked(seed, share=share)
        rows[f"{share:.0%} sparse, fine-tuned dense"] = plan.fine(
            f"spdf-{share:g}", seed, start=start
        )
        rows[f"{share:.0%} sparse, kept sparse"] = plan.fine(
            f"kept-{share:g}", seed, start=start, share=share
        )
    half = plan.scale.width // 2
    if half % 32 == 0:
        start = plan.masked(seed, width=half)
        rows["dense of half the width"] = plan.fine("half", seed, start=start, width=half)
    return rows


PLANS = {
    "labels": plan_labels,
    "sit": plan_sit,
    "further": plan_further,
    "sparse": plan_sparse,
}


def run_job(job: Job, out: str) -> dict[str, Any]:
    """Train a run, or read its result, in a separate process."""
    torch.set_num_threads(1)
    folder = Path(out)
    start = None if job.start is None else folder / job.start
    values = job.settings
    if job.teacher is not None:
        values = merge(values, {"further": {"teacher": str(folder / job.teacher)}})
    shared: dict[str, Any] = {"out": folder / job.name, "resume": True, "init_from": start}
    if job.kind == "pretrain":
        config = build(PretrainConfig, values, origin=job.name)
        result: Any = pretrain(config, job.store, **shared)
    else:
        result = train(build(TrainConfig, values, origin=job.name), job.store, **shared)
    found: dict[str, Any] = {
        name: getattr(result, name)
        for name in ("top1", "loss", "knn_top1", "linear_top1", "samples_per_second", "seconds")
        if getattr(result, name, None) is not None
    }
    return found


def gather(jobs: list[str], results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return mean and deviation over the seeds of a row."""
    found = [results[name] for name in jobs if name in results]
    row: dict[str, Any] = {"seeds": len(found)}
    for key in ("top1", "loss", "knn_top1", "linear_top1", "samples_per_second"):
        values = [one[key] for one in found if key in one]
        if values:
            row[key] = mean(values)
            row[f"{key}_std"] = stdev(values) if len(values) > 1 else math.nan
    return row


def theory(plan: Plan) -> dict[str, Any]:
    """Count the encoder's FLOPs per sample of a training step, ignoring masking."""
    scale = plan.scale
    store = open_store(plan.store)
    found = {}
    for width in (scale.width, scale.width // 2):
        vit = build_backbone(
            "vit_tiny_patch16_224",
            channels=store.codebook.shape[-1],
            input_size=(8, 8),
            num_classes=1,
            stem=scale.stem,
            embed_dim=width,
            depth=scale.depth,
            num_heads=max(1, width // 32),
        )
        layers = [name.removesuffix(".weight") for name in masked_weights(vit)]
        flops = count_flops(vit, (store.codebook.shape[-1], 8, 8))
        found[f"width {width}"] = {
            f"{share:.0%} sparse": TRAINING_FACTOR
            * flops.sparse_forward(dict.fromkeys(layers, 1 - share))
            for share in (0.0, *SHARES)
        }
    return found


def draw_curves(table: dict[str, Any], plan: Plan, path: Path) -> None:
    """Draw accuracy on TARGET by the length of further pre-training, as SVG."""
    steps = [length * plan.scale.shortest for length in LENGTHS]
    series = []
    for name in ("plain", "self-distilled"):
        points = [(0, table["not further"])]
        points += [(count, table[f"{name}, {count:,} steps"]) for count in steps]
        known = [(x, row["top1"]) for x, row in points if "top1" in row]
        series.append(Series(name, [x for x, _ in known], [y for _, y in known]))
    chart = line_chart(
        series,
        title="Further pre-training",
        x_label="steps of further pre-training",
        y_label="top-1 after fine-tuning",
        y_format="percent",
    )
    path.write_text(str(chart))


def main() -> None:
    """Run the study and print its JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store")
    parser.add_argument("target")
    parser.add_argument("out", type=Path)
    parser.add_argument("--scale", choices=SCALES, default="cpu")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--steps", type=int, help="steps of pre-training, instead of the scale's")
    parser.add_argument("--json", type=Path, help="also write the report here")
    parser.add_argument("--plot", type=Path, help="write an SVG of further pre-training here")
    arguments = parser.parse_args()
    scale = SCALES[arguments.scale]
    if arguments.steps:
        scale = replace(scale, steps=arguments.steps)
    plan = Plan(scale, arguments.store, arguments.target, arguments.device)
    rows: dict[str, dict[str, list[str]]] = {part: {} for part in arguments.parts}
    for seed in arguments.seeds:
        for part in arguments.parts:
            for row, job in PLANS[part](plan, seed).items():
                rows[part].setdefault(row, []).append(job)
    results = run_all(
        plan.jobs.values(),
        partial(run_job, out=str(arguments.out)),
        workers=arguments.jobs,
        seconds=arguments.seconds,
        needs=lambda job: job.needs,
    )
    tables = {
        part: {row: gather(jobs, results) for row, jobs in found.items()}
        for part, found in rows.items()
    }
    report = {
        "study": "pretraining",
        "scale": {"name": arguments.scale, **scale.__dict__},
        "stores": {
            name: {"samples": open_store(path).card.samples, "seal": open_store(path).card.seal}
            for name, path in (("store", arguments.store), ("target", arguments.target))
        },
        "tables": tables,
        "training_flops_per_sample": theory(plan),
        "runs": results,
        "environment": environment(torch.device(arguments.device)),
    }
    text = json.dumps(report, indent=2)
    if arguments.json:
        arguments.json.write_text(text)
    if arguments.plot and "further" in tables:
        draw_curves(tables["further"], plan, arguments.plot)
    print(text)


if __name__ == "__main__":
    main()
