"""Settings of runs: frozen dataclasses, one of each kind, and the groups that they share."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from seit.augment import AugmentConfig
from seit.config import build, flatten, to_mapping
from seit.errors import UsageError
from seit.stream import WINDOW_BLOCKS, Mode, OrderName
from seit.training.sparsity import SparsityConfig

REVISION = 2
"""Revision of the meaning of settings, which a run records when it starts; see
`LoopConfig.reinterpreted`."""

OF_THE_MACHINE = frozenset(
    {
        "data.mode",
        "probe.gradients",
        "run.checkpoint_every",
        "run.compile",
        "run.device",
        "run.eval_every",
        "run.log_every",
        "run.loggers",
    }
)
"""Settings that a resumed run may change: they say where and how it runs, not what it does."""

INIT_FROM = "init_from"
"""The setting that names the run whose weights are started from."""

LENGTHS = frozenset({"schedule.epochs", "schedule.steps"})
"""Settings that say how long a run is."""

_LARGEST = {"model.embed_dim": 1 << 16, "model.depth": 1 << 10, "model.num_heads": 1 << 10}
"""Sizes beyond which even a sketch of a network, without memory, takes too long."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The backbone: a timm model, by name, and what to change of its size."""

    name: str = "vit_small_patch16_224"
    """A backbone of timm."""
    stem: str = "auto"
    """The stem adaptor over the token grid: `auto` finds one that fits the backbone; for a ViT
    also kernel/stride/padding, such as `4/2/1`, which is its `auto`."""
    drop_path: float = 0.0
    """Stochastic depth of the last block, 0–1, rising linearly from 0 at the first."""
    embed_dim: int | None = None
    """Model dim D; None for the named model's own."""
    depth: int | None = None
    """Blocks; None for the named model's own."""
    num_heads: int | None = None
    """Attention heads; None for the named model's own."""

    def timm_kwargs(self) -> dict[str, Any]:
        """Return the arguments of `timm.create_model` besides the name."""
        sizes = {"embed_dim": self.embed_dim, "depth": self.depth, "num_heads": self.num_heads}
        chosen = {key: value for key, value in sizes.items() if value is not None}
        return {"drop_path_rate": self.drop_path, **chosen}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Data to read."""

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
    """The optimiser.

    `adamw` is Loshchilov and Hutter's (arXiv 1711.05101), `lamb` You et al.'s (arXiv 1904.00962),
    `muon` Jordan's (2024): Newton–Schulz steps for matrices, scaled to AdamW's size, and AdamW for
    embeddings, heads, norms and biases.
    """

    name: Literal["adamw", "lamb", "muon"] = "adamw"
    """Which one."""
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
    layer_decay: float = 1.0
    """Factor of the learning rate from one layer to the one below; 1 keeps it."""
    accumulate: int = 1
    """Parts that each rank's share of a batch goes through the network in; the gradient is that
    of the whole batch."""


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
    """Loss to minimize: against hard labels, as smoothing, CutMix and Mixup soften them."""

    kind: Literal["ce", "bce"] = "ce"
    """Cross-entropy, or binary cross-entropy of each class by itself, averaged over the classes
    (Wightman et al., arXiv 2110.00476)."""
    label_smoothing: float = 0.1
    """Share of the target spread evenly over all classes, 0 to below 1."""


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """A finished run that teaches (Hinton et al., arXiv 1503.02531; `hard`: arXiv 2012.12877)."""

    teacher: str | None = None
    """The folder of the teacher's run; None for no teacher. One of the same store's tokens sees
    the student's own augmented inputs. One of pixels (its `data.pixels`) sees each instance once,
    centre-cropped, before the training."""
    pixels: str | None = None
    """SRC of the images that a teacher of pixels sees; None for those of `data.pixels`. The one
    that the teacher's own settings name is not opened."""
    kind: Literal["soft", "hard"] = "soft"
    """Target of the student: the teacher's probabilities or its best class."""
    alpha: float = 0.5
    """Share of the teacher in the loss, 0–1."""
    temperature: float = 1.0
    """Divisor of logits for `soft`; its loss is multiplied by the square."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where and how the run goes, and what it notes down."""

    seed: int = 0
    """Seed for weights, data order and augmentation."""
    device: str = "auto"
    """Where to train: auto, cpu, cuda, cuda:1, mps; `auto` takes a GPU where there is one."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of forward and backward; `auto` is bf16 on CUDA and fp32 elsewhere. `fp16` scales
    the loss and passes over steps whose gradients overflow."""
    compile: bool = False
    """Compile the network by `torch.compile`."""
    eval_every: int = 0
    """Steps between evaluations; 0 makes ten evenly spread ones."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 writes one after each evaluation. Also at SIGTERM and Ctrl-C."""
    log_every: int = 20
    """Steps between lines in `metrics.jsonl`."""
    loggers: tuple[str, ...] = ("auto",)
    """Where else figures go: tensorboard, wandb, trackio, mlflow; `auto` is TensorBoard where it
    is installed."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Settings of every run, whatever it learns."""

    extensible: ClassVar[frozenset[str]] = LENGTHS
    """Settings that a resumed run may raise."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The backbone."""
    data: DataConfig = field(default_factory=DataConfig)
    """Data to read."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """The augmentations."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Length and learning rates."""
    ema: EmaConfig = field(default_factory=EmaConfig)
    """The average of the weights."""
    sparsity: SparsityConfig = field(default_factory=SparsityConfig)
    """Weights that are held at zero."""
    run: RunConfig = field(default_factory=RunConfig)
    """Seed, device and bookkeeping."""
    init_from: str | None = None
    """The folder of a finished run whose weights to start from; None for new ones."""

    def __post_init__(self) -> None:
        require_shares(self, "model.drop_path", "ema.decay", fits=lambda share: 0 <= share < 1)
        require_shares(self, "optim.layer_decay", fits=lambda share: 0 < share <= 1)
        require_setting(0 < self.optim.lr < math.inf, "optim.lr", self, "above 0")
        least = {
            "data.batch_size": 1,
            "optim.clip_grad": 0,
            "optim.accumulate": 1,
            "schedule.epochs": 1,
            "schedule.steps": 1,
            "schedule.warmup_steps": 0,
            "run.eval_every": 0,
            "run.checkpoint_every": 0,
            "run.log_every": 1,
        }
        for name, low in least.items():
            value = _value(self, name)
            require_setting(value is None or value >= low, name, self, f"at least {low}")
        for name, high in _LARGEST.items():
            value = _value(self, name)
            fits = value is None or 1 <= value <= high
            require_setting(fits, name, self, f"from 1 to {high:,}")
        require_setting(0 <= self.run.seed < 1 << 63, "run.seed", self, "in 0…2^63")

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up, scaled to the batch."""
        scale = self.data.batch_size / self.optim.lr_batch_size if self.optim.lr_batch_size else 1
        return self.optim.lr * scale

    def differences(self, earlier: Mapping[str, Any]) -> list[str]:
        """Name the settings in which the run of a saved config differs from this one's.

        Settings of the machine do not count, a longer schedule is none, and those that did not
        exist yet when the config was saved had their defaults. Starts from other
        weights are found by `Run.check_same`.

        Raises:
            UsageError: what was saved is no such config.
        """
        begun = build(type(self), earlier, origin="the config that was saved")
        mine, theirs = flatten(to_mapping(self)), flatten(to_mapping(begun))
        return [
            f"{name} was {theirs[name]!r} and is {mine[name]!r}"
            for name in sorted(mine)
            if mine[name] != theirs[name]
            and name not in OF_THE_MACHINE
            and name != INIT_FROM
            and not (name in self.extensible and _is_longer(mine[name], theirs[name]))
        ]

    def reinterpreted(self) -> list[str]:
        """Name the settings in use that meant something else in revision 1.

        A run that was started then cannot be resumed: its second half would do other things than
        its first. In revision 1 synonyms were the nearest by cosine, Emb-Noise had one unit for all
        channels, and TokenAdapt's warps were fewer and bilinear; of objectives and methods their
        own configs tell.
        """
        augment = self.augment
        used = {
            "augment.synonym_prob": augment.synonym_prob and augment.synonym_rate,
            "augment.noise_prob": augment.noise_prob and (augment.noise_scale or augment.noise_std),
            "augment.token_adapt": augment.token_adapt,
        }
        return [name for name, value in used.items() if value and self.data.pixels is None]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(LoopConfig):
    """A run that learns classes: what `seit train` does with a store."""

    loss: LossConfig = field(default_factory=LossConfig)
    """The loss."""
    distill: DistillConfig = field(default_factory=DistillConfig)
    """The teacher."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_shares(self, "loss.label_smoothing", fits=lambda share: 0 <= share < 1)
        require_shares(self, "distill.alpha", fits=lambda share: 0 <= share <= 1)
        require_setting(
            0 < self.distill.temperature < math.inf, "distill.temperature", self, "above 0"
        )


def _is_longer(value: Any, before: Any) -> bool:
    return isinstance(value, int) and (not isinstance(before, int) or value > before)


def _value(config: LoopConfig, name: str) -> Any:
    value: Any = config
    for key in name.split("."):
        value = getattr(value, key)
    return value


def require_setting(condition: bool, name: str, config: LoopConfig, expected: str) -> None:
    """Refuse the setting ``name`` of a config, which must be as ``expected`` says.

    Raises:
        UsageError: the condition does not hold.
    """
    if not condition:
        raise UsageError(f"{name} is {_value(config, name)!r}; it must be {expected}")


def require_shares(config: LoopConfig, *names: str, fits: Callable[[float], bool]) -> None:
    """Refuse settings that are no shares in 0…1, as ``fits`` draws its ends.

    Raises:
        UsageError: one is not.
    """
    for name in names:
        require_setting(fits(_value(config, name)), name, config, "in 0…1")
