"""Run settings: one frozen dataclass per kind of run, and the groups they share."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from seit.augment import AugmentConfig
from seit.config import build, flatten, to_mapping
from seit.errors import UsageError
from seit.stream import WINDOW_BLOCKS, Mode, OrderName, Sampling

REVISION = 5
"""Revision of the meaning of settings, which a run records when it starts; see
`LoopConfig.reinterpreted` and `reinterpreted_data`."""

OF_THE_MACHINE = frozenset(
    {
        "compression.measure",
        "data.mode",
        "probe.gradients",
        "run.checkpoint_every",
        "run.compile",
        "run.compile_scope",
        "run.device",
        "run.eval_every",
        "run.log_every",
        "run.loggers",
    }
)
"""Settings that a resumed run may change: they affect where and how it runs, not its result."""

INIT_FROM = "init_from"
"""Setting that names the run to take initial weights from."""

LENGTHS = frozenset({"schedule.epochs", "schedule.steps"})
"""Settings that determine the length of a run."""

_BLOCK = re.compile(r"blocks\.(0|[1-9][0-9]{0,3})")
_LARGEST = {"model.embed_dim": 1 << 16, "model.depth": 1 << 10, "model.num_heads": 1 << 10}
"""Sizes beyond which even a network on the meta device takes too long to build."""
_FINITE = (
    "optim.weight_decay",
    "optim.eps",
    "schedule.warmup_epochs",
    "schedule.warmup_lr",
    "schedule.min_lr",
)
"""Settings from 0 to below infinity."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Backbone: the name of a timm model, and changes to its size."""

    name: str = "vit_small_patch16_224"
    """Name of a timm backbone."""
    stem: str = "auto"
    """Stem adaptor over the token grid: `auto` picks one that fits the backbone; a ViT also takes
    kernel/stride/padding, such as `4/2/1`, its `auto`, or several joined by `+`; `early/4` is three
    convolutions that make patches of 4×4 tokens, and `early/2` and `early/1` smaller ones. For
    pixels it is scaled to the pixels of its tokens, but several joined by `+` are taken as they
    are."""
    drop_path: float = 0.0
    """Stochastic depth of the last block, 0–1, rising linearly from 0 at the first."""
    embed_dim: int | None = None
    """Model dim D; None for the named model's default."""
    depth: int | None = None
    """Number of blocks; None for the named model's default."""
    num_heads: int | None = None
    """Attention heads; None for the named model's default."""
    last_stage: str | None = None
    """Stage after which a hierarchical backbone ends, such as layer3 of a ResNet; None for its
    last."""

    def timm_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of `build_backbone` that only some networks take."""
        sizes = {
            "embed_dim": self.embed_dim,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "last_stage": self.last_stage,
        }
        chosen = {key: value for key, value in sizes.items() if value is not None}
        return {"drop_path_rate": self.drop_path, **chosen}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Data to read."""

    batch_size: int = 128
    """Samples per step, over all devices."""
    train_split: str = "train"
    """Training split."""
    val_split: str = "val"
    """Evaluated split."""
    pixels: str | None = None
    """SRC whose decoded pixels to train on instead of the tokens, as a baseline."""
    root: str | None = None
    """Folder that the relative paths of a table `pixels` start at; None for the table's own."""
    fraction: float = 1.0
    """Fraction of each class's training files to use, chosen by the seed: 0.01 for 1 %. All windows
    of a recording, and all views of a picture, are used together."""
    sampling: Sampling = "natural"
    """`natural` draws every training sample once per epoch; `balanced` every class as often, from
    labeled samples. With `order: window` each class has its share in every window."""
    order: OrderName = "global"
    """`global` permutes all samples; `window` permutes blocks, then samples within a window."""
    window_blocks: int = WINDOW_BLOCKS
    """Blocks per window of the order `window`, usually of 1,024 samples each."""
    mode: Mode = "auto"
    """`resident` keeps whole splits in memory; `streaming` keeps two windows and needs the order
    `window`; `auto` is resident if the copies of all processes take at most half of the memory.
    Pixels are decoded once (`resident`) or at each step; `auto` decodes up to 2 GiB once."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimizer settings.

    `adamw` is Loshchilov and Hutter's (arXiv 1711.05101), `lamb` You et al.'s (arXiv 1904.00962),
    `muon` Jordan's (2024): Newton–Schulz steps of Nesterov momentum for matrices, scaled to AdamW's
    size, and AdamW for embeddings, heads, norms and biases.
    """

    name: Literal["adamw", "lamb", "muon"] = "adamw"
    """Optimizer."""
    lr: float = 7.5e-4
    """Peak learning rate for a batch of `lr_batch_size`."""
    lr_batch_size: int = 512
    """Batch size of `lr`: the rate is lr · batch_size / lr_batch_size; 0 does not scale."""
    weight_decay: float = 0.1
    """Decoupled weight decay, not applied to biases, norms and position embeddings."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the moments."""
    eps: float = 1e-8
    """Term added to the denominator."""
    clip_grad: float = 0.0
    """Maximum norm of the gradient; 0 disables clipping."""
    layer_decay: float = 1.0
    """Layer-wise learning rate decay, from each layer to the one below; 1 disables it."""
    accumulate: int = 1
    """Micro-batches per step and rank; the gradient is that of the whole batch, except in networks
    with batch norm, whose statistics are those of a micro-batch."""


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Linear warm-up followed by cosine decay, updated at each step."""

    epochs: int = 300
    """Epochs of training."""
    steps: int | None = None
    """Steps of training; overrides `epochs`."""
    warmup_epochs: float = 5.0
    """Epochs of warm-up."""
    warmup_steps: int | None = None
    """Steps of warm-up; overrides `warmup_epochs`."""
    warmup_lr: float = 1e-6
    """Learning rate of the first step."""
    min_lr: float = 1e-5
    """Learning rate of the last step."""


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """Exponential moving average of the weights, which is evaluated and saved."""

    decay: float = 0.9999
    """Decay per step; 0 disables the average."""
    warmup: bool = True
    """Ramp up the decay, so that short runs do not average in their first steps."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Loss against hard labels, as softened by smoothing, CutMix and Mixup."""

    kind: Literal["ce", "bce"] = "ce"
    """Cross-entropy, or binary cross-entropy averaged over the classes (Wightman et al., arXiv
    2110.00476)."""
    label_smoothing: float = 0.1
    """Label smoothing: fraction of the target spread over all classes, 0 to below 1."""
    class_weights: str | None = None
    """Weights of classes: `balanced`, inverse to their training samples with a mean of 1 over
    samples, or a YAML or JSON file of weights by class name."""


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Distillation from a run (Hinton et al., arXiv 1503.02531; `hard`: arXiv 2012.12877)."""

    teacher: str | None = None
    """Folder of the teacher's run; None for no teacher. A teacher on tokens of the same store sees
    the student's augmented inputs; a teacher on pixels (its `data.pixels`) sees each instance once,
    center-cropped, before training."""
    pixels: str | None = None
    """SRC of the images for a teacher on pixels; None for `data.pixels`. The SRC in the teacher's
    own settings is never opened."""
    root: str | None = None
    """Folder that the relative paths of a table `pixels` start at; None for the table's own."""
    kind: Literal["soft", "hard"] = "soft"
    """Target of the student: the teacher's probabilities (`soft`) or its top class (`hard`)."""
    alpha: float = 0.5
    """Weight of the teacher in the loss, 0–1."""
    temperature: float = 1.0
    """Divisor of the logits for `soft`, whose loss is multiplied by its square."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Seed, device, precision and bookkeeping of a run."""

    seed: int = 0
    """Seed for weights, data order and augmentation."""
    device: str = "auto"
    """Device to train on: auto, cpu, cuda, cuda:1, mps; `auto` takes a GPU if there is one."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of forward and backward; `auto` is bf16 on CUDA and fp32 elsewhere. `fp16` scales
    the loss and skips steps whose gradients overflow."""
    compile: bool = False
    """Compile the network with `torch.compile`."""
    compile_scope: Literal["network", "blocks"] = "network"
    """Compile the network as a whole, or each of its blocks alone: alike blocks share one program,
    so compiling takes less time the deeper the network is."""
    eval_every: int = 0
    """Steps between evaluations; 0 for ten evenly spaced ones."""
    checkpoint_every: int = 0
    """Steps between checkpoints, apart from those at SIGTERM and Ctrl-C; 0 for each evaluation."""
    log_every: int = 20
    """Steps between lines in `metrics.jsonl`."""
    loggers: tuple[str, ...] = ("auto",)
    """More loggers: tensorboard, wandb, trackio, mlflow; `auto` is TensorBoard if installed."""


@dataclass(frozen=True, kw_only=True)
class SparsityConfig:
    """Weights of a ViT's blocks that are held at zero.

    Raises:
        UsageError: a share is out of range or does not fit the pattern.
    """

    share: float = 0.0
    """Fraction of each matrix that is zero, 0 to below 1; 0 for a dense run."""
    pattern: Literal["unstructured", "2:4"] = "unstructured"
    """Unstructured zeros, which speed up no GPU, or two of every four neighboring inputs of each
    output (half of them), which GPUs support since Ampere."""
    seed: int | None = None
    """Seed of the masks; None for the run's. With the same seed, a sparse run initialized from
    another keeps its zeros."""

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise UsageError(f"sparsity.share is {self.share}; expected 0 to below 1")
        if self.pattern not in ("unstructured", "2:4"):
            raise UsageError(f"sparsity.pattern is {self.pattern!r}; expected unstructured or 2:4")
        if self.pattern == "2:4" and self.share != 0.5:
            raise UsageError(
                f"sparsity.share is {self.share}, but the pattern 2:4 holds half of the weights at "
                "zero; set it to 0.5"
            )
        if self.seed is not None and not 0 <= self.seed < 1 << 63:
            raise UsageError(f"sparsity.seed is {self.seed}; expected 0…2^63")


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Settings shared by all kinds of run."""

    extensible: ClassVar[frozenset[str]] = LENGTHS
    """Settings that a resumed run may increase."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """Backbone."""
    data: DataConfig = field(default_factory=DataConfig)
    """Data to read."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentations."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Length and learning rates."""
    ema: EmaConfig = field(default_factory=EmaConfig)
    """Average of the weights."""
    sparsity: SparsityConfig = field(default_factory=SparsityConfig)
    """Weights held at zero."""
    run: RunConfig = field(default_factory=RunConfig)
    """Seed, device and bookkeeping."""
    init_from: str | None = None
    """Folder of a finished run to take initial weights from; None to train from scratch."""

    def __post_init__(self) -> None:
        require_shares(self, "model.drop_path", "ema.decay", fits=lambda share: 0 <= share < 1)
        require_shares(self, "optim.layer_decay", fits=lambda share: 0 < share <= 1)
        require_setting(0 < self.optim.lr < math.inf, "optim.lr", self, "above 0")
        require_table("data", self.data)
        fits = 0 < self.data.fraction <= 1
        require_setting(fits, "data.fraction", self, "above 0 and at most 1, such as 0.1 for 10 %")
        least = {
            "data.batch_size": 1,
            "data.window_blocks": 1,
            "optim.lr_batch_size": 0,
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
        for name in _FINITE:
            fits = 0 <= _value(self, name) < math.inf
            require_setting(fits, name, self, "at least 0 and finite")
        fits = all(0 <= beta < 1 for beta in self.optim.betas)
        require_setting(fits, "optim.betas", self, "two numbers from 0 to below 1, as 0.9 and 0.95")
        for name, high in _LARGEST.items():
            value = _value(self, name)
            fits = value is None or 1 <= value <= high
            require_setting(fits, name, self, f"from 1 to {high:,}")
        require_setting(0 <= self.run.seed < 1 << 63, "run.seed", self, "in 0…2^63")

    @property
    def peak_lr(self) -> float:
        """Learning rate after warm-up, scaled to the batch size."""
        scale = self.data.batch_size / self.optim.lr_batch_size if self.optim.lr_batch_size else 1
        return self.optim.lr * scale

    def differences(self, earlier: Mapping[str, Any]) -> list[str]:
        """Return the settings in which a saved config differs from this one.

        Ignores settings of the machine and a longer schedule; settings newer than the saved config
        count with their defaults. `Run.check_same` compares the initial weights.

        Raises:
            UsageError: the saved mapping is not a config of this kind.
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

    def reinterpreted(self, revision: int) -> list[str]:
        """Return the settings in use whose meaning changed after ``revision``.

        A run started under it cannot resume with them: its second half would differ from its first.
        In revision 1 synonyms were the nearest by cosine, Emb-Noise had one unit for all channels,
        and TokenAdapt's warps were fewer and bilinear; before revision 4 Muon's momentum was not
        Nesterov's. Configs of objectives, methods and streams add their own.
        """
        optimizer = ["optim.name"] if self.optim.name == "muon" and revision < 4 else []
        if revision > 1:
            return optimizer
        augment = self.augment
        used = {
            "augment.synonym_prob": augment.synonym_prob and augment.synonym_rate,
            "augment.noise_prob": augment.noise_prob and (augment.noise_scale or augment.noise_std),
            "augment.token_adapt": augment.token_adapt,
        }
        tokens = [name for name, value in used.items() if value and self.data.pixels is None]
        return [*optimizer, *tokens]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(LoopConfig):
    """Settings of a supervised run, as trained by `seit train`."""

    layer: str | None = None
    """Layer of the run of `init_from` that the classifier reads, as `seit analyze` names it: block
    `blocks.N` of a ViT, or a stage. What follows is dropped. None keeps all."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Loss."""
    distill: DistillConfig = field(default_factory=DistillConfig)
    """Teacher."""
    pretrained: str | None = None
    """File of timm's pretrained weights of this backbone to start from: .safetensors, or a torch
    file that holds tensors only. The stem and the classifier are new."""
    pretrained_head: bool = False
    """Load the classifier of `pretrained` too, which must have as many classes as the store."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretrained is not None and self.init_from is not None:
            raise UsageError("pretrained and init_from are both set; start from one of them")
        if self.pretrained is not None and self.model.last_stage is not None:
            raise UsageError(
                "pretrained and model.last_stage are both set; train the whole network, and then "
                "from that run with --init-from and --layer"
            )
        require_shares(self, "loss.label_smoothing", fits=lambda share: 0 <= share < 1)
        require_table("distill", self.distill)
        require_shares(self, "distill.alpha", fits=lambda share: 0 <= share <= 1)
        require_setting(
            0 < self.distill.temperature < math.inf, "distill.temperature", self, "above 0"
        )
        if self.layer is not None and self.model.last_stage != self.layer:
            depth = index_of_block(self.layer) + 1
            fits = self.model.depth == depth
            require_setting(fits, "model.depth", self, f"{depth}, as layer is {self.layer}")


def require_table(name: str, group: DataConfig | DistillConfig) -> None:
    """Check that a group of settings with a root names the images that it is for.

    Raises:
        UsageError: it does not.
    """
    if group.root is not None and group.pixels is None:
        raise UsageError(
            f"{name}.root is {group.root!r}, which is for a table of {name}.pixels; name that too, "
            "or leave it out"
        )


def index_of_block(layer: str) -> int:
    """Return N of a layer `blocks.N`.

    Raises:
        UsageError: it is another layer.
    """
    match = _BLOCK.fullmatch(layer)
    if match is None:
        raise UsageError(
            f"layer is {layer!r}; a classifier reads blocks.0, blocks.1, … of a run's ViT, a stage "
            "of another network, or layers.0, … of a speech model (--backbone)"
        )
    return int(match[1])


def _is_longer(value: Any, before: Any) -> bool:
    return isinstance(value, int) and isinstance(before, int) and value > before


def _value(config: LoopConfig, name: str) -> Any:
    value: Any = config
    for key in name.split("."):
        value = getattr(value, key)
    return value


def require_setting(condition: bool, name: str, config: LoopConfig, expected: str) -> None:
    """Raise a `UsageError` unless ``condition`` holds for the setting ``name``.

    The message says that the setting must be as ``expected`` describes.
    """
    if not condition:
        raise UsageError(f"{name} is {_value(config, name)!r}; it must be {expected}")


def require_defaults(config: LoopConfig, *names: str, reason: str) -> None:
    """Refuse settings without effect.

    Raises:
        UsageError: a setting differs from the default of its group; the message gives ``reason``.
    """
    for name in names:
        group, _, key = name.rpartition(".")
        default = getattr(type(_value(config, group) if group else config)(), key)
        if _value(config, name) != default:
            raise UsageError(
                f"{name} is {_value(config, name)!r}, but {reason}; set it to {default!r}"
            )


def require_shares(config: LoopConfig, *names: str, fits: Callable[[float], bool]) -> None:
    """Check that settings are fractions in 0–1, with the ends that ``fits`` accepts.

    Raises:
        UsageError: a setting is out of range.
    """
    for name in names:
        require_setting(fits(_value(config, name)), name, config, "in 0…1")
