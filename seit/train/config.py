"""What a training run does: one frozen dataclass, its groups beside it."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from seit.augment import AugmentConfig
from seit.errors import UsageError
from seit.settings import flatten, to_mapping
from seit.stream.loaders import Mode, OrderName
from seit.stream.order import WINDOW_BLOCKS


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The backbone: a timm model, by name, and what to change of its size."""

    name: str = "vit_small_patch16_224"
    """A ViT or DeiT of timm."""
    stem: str = "4/2/1"
    """Kernel/stride/padding of the stem adaptor over the token grid."""
    drop_path: float = 0.0
    """Stochastic depth of the last block, 0–1, rising linearly from 0 at the first."""
    embed_dim: int | None = None
    """Model dim D; None for the named model's own."""
    depth: int | None = None
    """Blocks; None for the named model's own."""
    num_heads: int | None = None
    """Attention heads; None for the named model's own."""

    def timm_kwargs(self) -> dict[str, Any]:
        """What `timm.create_model` is told besides the name."""
        sizes = {"embed_dim": self.embed_dim, "depth": self.depth, "num_heads": self.num_heads}
        chosen = {key: value for key, value in sizes.items() if value is not None}
        return {"drop_path_rate": self.drop_path, **chosen}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is read."""

    batch_size: int = 128
    """Samples per step, over all devices."""
    train_split: str = "train"
    """The split that is trained on."""
    val_split: str = "val"
    """The split that is evaluated."""
    pixels: str | None = None
    """Train on the decoded pixels of this SRC instead of the tokens: the baseline."""
    fraction: float = 1.0
    """Share of each class's training samples that is used, chosen by the seed: 0.01 for 1 %."""
    order: OrderName = "global"
    """`global` permutes all samples; `window` blocks, then samples within a window of them."""
    window_blocks: int = WINDOW_BLOCKS
    """Blocks of a window of the order `window`, usually of 1,024 samples each."""
    mode: Mode = "auto"
    """`resident` keeps splits in memory, `streaming` two windows of them, which takes the order
    `window`; `auto` is resident where that takes up to half of the free memory."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101)."""

    lr: float = 7.5e-4
    """Peak learning rate for a batch of `lr_batch_size`."""
    lr_batch_size: int = 512
    """The rate used is lr · batch_size / lr_batch_size; 0 uses `lr` as it is."""
    weight_decay: float = 0.1
    """Decoupled weight decay; biases, norms and position embeddings have none."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the moments."""
    eps: float = 1e-8
    """Added to the denominator."""
    clip_grad: float = 0.0
    """Largest norm of the gradient; 0 does not clip."""


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Linear warm-up, then a cosine, updated at each step."""

    epochs: int = 300
    """Passes over the training split."""
    steps: int | None = None
    """Steps; where given, `epochs` is not used."""
    warmup_epochs: float = 5.0
    """Epochs of warm-up."""
    warmup_steps: int | None = None
    """Steps of warm-up; where given, `warmup_epochs` is not used."""
    warmup_lr: float = 1e-6
    """Rate of the first step."""
    min_lr: float = 1e-5
    """Rate of the last step."""


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """The running average of the weights, which is what gets evaluated and saved."""

    decay: float = 0.9999
    """Decay per step; 0 switches the average off."""
    warmup: bool = True
    """Let the decay rise with the steps, so that short runs do not average their start."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Cross-entropy."""

    label_smoothing: float = 0.1
    """Share of the target spread evenly over all classes, 0 to below 1."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where and how the run goes, and what it notes down."""

    seed: int = 0
    """Of weights, order and augmentation."""
    device: str = "auto"
    """Where to train: auto, cpu, cuda, cuda:1, mps; `auto` takes a GPU where there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of forward and backward; `auto` is bf16 on CUDA and fp32 elsewhere."""
    eval_every: int = 0
    """Steps between evaluations (and checkpoints); 0 makes ten evenly spread ones."""
    log_every: int = 20
    """Steps between lines in `metrics.jsonl`."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A run: what `seit train` does with a store."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The backbone."""
    data: DataConfig = field(default_factory=DataConfig)
    """What is read."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """The augmentations."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Length and learning rates."""
    ema: EmaConfig = field(default_factory=EmaConfig)
    """The average of the weights."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The loss."""
    run: RunConfig = field(default_factory=RunConfig)
    """Seed, device and bookkeeping."""

    def __post_init__(self) -> None:
        smoothing = self.loss.label_smoothing
        _require(0 <= smoothing < 1, "loss.label_smoothing", smoothing, "in 0…1")
        _require(0 <= self.model.drop_path < 1, "model.drop_path", self.model.drop_path, "in 0…1")
        _require(self.data.batch_size >= 1, "data.batch_size", self.data.batch_size, "at least 1")
        _require(self.optim.lr > 0, "optim.lr", self.optim.lr, "above 0")
        _require(self.optim.clip_grad >= 0, "optim.clip_grad", self.optim.clip_grad, "at least 0")
        _require(0 <= self.ema.decay < 1, "ema.decay", self.ema.decay, "in 0…1")
        _require(self.schedule.epochs >= 1, "schedule.epochs", self.schedule.epochs, "at least 1")
        _require(self.run.eval_every >= 0, "run.eval_every", self.run.eval_every, "at least 0")
        _require(self.run.log_every >= 1, "run.log_every", self.run.log_every, "at least 1")
        _require(0 <= self.run.seed < 1 << 63, "run.seed", self.run.seed, "in 0…2^63")
        for name in ("steps", "warmup_steps"):
            value = getattr(self.schedule, name)
            low = 1 if name == "steps" else 0
            _require(value is None or value >= low, f"schedule.{name}", value, f"at least {low}")

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up, scaled to the batch."""
        scale = self.data.batch_size / self.optim.lr_batch_size if self.optim.lr_batch_size else 1
        return self.optim.lr * scale

    def differences(self, earlier: dict[str, Any]) -> list[str]:
        """Name the settings in which a run's saved config differs from this one."""
        mine, theirs = flatten(to_mapping(self)), flatten(earlier)
        return [
            f"{name} was {theirs.get(name)!r} and is {mine.get(name)!r}"
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name)
        ]

    @property
    def fingerprint(self) -> str:
        """The sha256 of all settings."""
        return hashlib.sha256(json.dumps(to_mapping(self), sort_keys=True).encode()).hexdigest()


def _require(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise UsageError(f"{name} is {value!r}; it must be {expected}")
