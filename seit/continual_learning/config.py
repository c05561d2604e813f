"""Settings of a continual run: its stream, learner and memory."""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from typing_extensions import override

from seit.augment import AugmentConfig
from seit.continual_learning.checks import check_together
from seit.continual_learning.learners.base import Learner
from seit.continual_learning.learners.registry import LEARNERS
from seit.continual_learning.methods import Method
from seit.models import TUNINGS, TuningConfig
from seit.training import (
    EmaConfig,
    LoopConfig,
    OptimConfig,
    ScheduleConfig,
    require_setting,
    require_shares,
)


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """Stream of samples."""

    kind: Literal["class", "domain", "online", "blurry"] = "class"
    """`class`: new classes in every task. `domain`: the same classes from another domain in every
    task. `online`: as `class`, but each sample is seen once, without task boundaries. `blurry`: as
    `online`, with some classes in all tasks (i-Blurry, arXiv 2110.10031)."""
    increment: int = 2
    """Classes per task of a `class` or `online` stream."""
    initial: int | None = None
    """Classes of the first task; None for `increment` (B0), half of all classes for B50."""
    order: str = "natural"
    """Order of the classes: `natural`, `pilot` (numpy's permutation with seed 1993), `pilot:SEED`,
    or a file of class numbers or names. In a `blurry` stream the first classes are the disjoint
    ones."""
    domains: str | None = None
    """CSV file of keys and domains, or `folder` for the first folder of each key."""
    tasks: int = 5
    """Tasks of a `blurry` stream."""
    disjoint_share: float = 0.5
    """Share of the classes of a `blurry` stream that occur in one task only, 0–1."""
    blur_share: float = 0.1
    """Share of the samples of each other class that occur outside its own task, 0–1."""
    eval_every: int = 0
    """Samples between two evaluations of a task-free stream; 0 for ten evaluations in total. Each
    follows the first step that reaches a multiple of these samples, and changes no step. Each task
    also ends with one."""


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """Memory of past samples."""

    bytes: int = 0
    """Budget for all exemplars, including the labels and logits kept with them."""
    medium: str = "tokens"
    """Storage of exemplars: `tokens`, packed; or `raw`, `png` or `jpeg:QUALITY` pictures at the
    tokenizer's resolution, tokenized again for replay."""
    source: str | None = None
    """SRC of the pictures, if the medium stores pictures."""
    root: str | None = None
    """Folder that the relative paths of a table `source` start at; None for the table's own."""
    policy: Literal["auto", "reservoir", "balanced"] = "auto"
    """Selection of exemplars: `reservoir` keeps each sample with equal probability, `balanced`
    gives each class an equal share; `auto` is `balanced`, or `reservoir` in task-free streams.
    iCaRL and GDumb have their own policies."""
    batch_size: int | None = None
    """Samples per step from memory; None for as many as new ones."""


@dataclass(frozen=True, kw_only=True)
class LaeConfig:
    """Learning, accumulation, ensemble (Gao et al., ICCV 2023, arXiv 2303.10070)."""

    freeze: float = 0.6
    """Share of a task's steps in which only the classifier is trained, from the second task on."""
    ema_decay: float = 0.9999
    """Decay of the offline module per step."""
    ema_absorb: float | None = None
    """Share of the online module absorbed by the offline one per task of any length, instead of a
    decay. The official decay of 0.9999 amounts to 0.099 in 1,040 steps (CIFAR-100), 0.39 in 5,000
    (ImageNet-R) and 0.02 in 200, which leaves the offline module nearly unchanged."""
    experts: Literal["both", "online", "offline"] = "both"
    """Modules that predict; `both` takes the more confident one for each class."""


@dataclass(frozen=True, kw_only=True)
class RehearsalConfig:
    """Weights of the terms of DER++'s loss."""

    alpha: float = 0.5
    """DER++: weight of the distance to stored logits (arXiv 2004.07211)."""
    beta: float = 0.5
    """DER++: weight of the cross-entropy of replayed samples."""


@dataclass(frozen=True, kw_only=True)
class RanpacConfig:
    """Random projections and class prototypes (McDonnell et al., arXiv 2307.02251)."""

    dim: int = 2000
    """Size of the projection. The paper uses 10,000, with a Gram matrix of 800 MB."""


def _learning() -> OptimConfig:
    return OptimConfig(lr=2.8125e-3, lr_batch_size=0, weight_decay=0.0)


def _schedule() -> ScheduleConfig:
    return ScheduleConfig(epochs=5, warmup_epochs=0.0, min_lr=1.0)


def _views() -> AugmentConfig:
    return AugmentConfig(synonym_prob=0, swap_prob=0, noise_prob=0, cutmix_prob=0)


@dataclass(frozen=True, kw_only=True)
class ContinualConfig(LoopConfig):
    """Settings of `seit continual`.

    Raises:
        UsageError: values contradict each other.
    """

    method: Method = "lae"
    """Continual learning method."""
    augment: AugmentConfig = field(default_factory=_views)
    """Augmentations, without mixing."""
    optim: OptimConfig = field(default_factory=_learning)
    """Optimizer, reset for every task. LAE's learning rate assumes batches of 24. With
    `weight_decay`, classifier rows of other classes decay too."""
    schedule: ScheduleConfig = field(default_factory=_schedule)
    """Schedule of each task: `epochs` or `steps` count per task. A `min_lr` above `lr` keeps the
    rate constant. A task-free stream is a single pass with one schedule and ignores `epochs` and
    `steps`."""
    ema: EmaConfig = field(default_factory=lambda: EmaConfig(decay=0.0))
    """Unused: averages that a method keeps have their own settings."""
    tuning: TuningConfig = field(default_factory=lambda: TuningConfig(method="adapter"))
    """Tuning of the backbone; ignored by methods that leave it unchanged."""
    stream: StreamConfig = field(default_factory=StreamConfig)
    """Stream of samples."""
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    """Memory of samples."""
    mask: Literal["auto", "task", "seen"] = "auto"
    """Classes in the cross-entropy of new samples: those of the task (LAE's local loss), or all
    seen so far. `auto`: `task` for LAE, seq-ft and frozen-head, `seen` for ER, DER++ and joint, and
    `seen` for all methods in streams other than `class`. Other methods have no such loss."""
    lae: LaeConfig = field(default_factory=LaeConfig)
    """LAE."""
    rehearsal: RehearsalConfig = field(default_factory=RehearsalConfig)
    """DER++."""
    ranpac: RanpacConfig = field(default_factory=RanpacConfig)
    """RanPAC."""

    extensible: ClassVar[frozenset[str]] = frozenset()
    """Empty: completed tasks would have had another length."""

    @override
    def reinterpreted(self, revision: int) -> list[str]:
        """Include the settings of the tuning method, and evaluations that ended a step early."""
        own = TUNINGS[self.tuning.method].reinterpreted(self.tuning) if revision < 2 else []
        ended_steps = ["stream.eval_every"] if self.task_free and revision < 3 else []
        return [*super().reinterpreted(revision), *own, *ended_steps]

    def __post_init__(self) -> None:
        super().__post_init__()
        require_shares(self, "lae.freeze", "lae.ema_decay", fits=lambda share: 0 <= share < 1)
        require_shares(
            self,
            "stream.disjoint_share",
            "stream.blur_share",
            fits=lambda share: 0 <= share <= 1,
        )
        absorb = self.lae.ema_absorb
        require_setting(absorb is None or 0 <= absorb < 1, "lae.ema_absorb", self, "in 0…1")
        is_natural = self.data.sampling == "natural"
        require_setting(is_natural, "data.sampling", self, "natural in a continual run")
        require_setting(self.stream.increment >= 1, "stream.increment", self, "at least 1")
        first = self.stream.initial
        require_setting(first is None or first >= 1, "stream.initial", self, "at least 1")
        require_setting(self.stream.eval_every >= 0, "stream.eval_every", self, "at least 0")
        require_setting(self.ranpac.dim >= 1, "ranpac.dim", self, "at least 1")
        require_setting(self.memory.bytes >= 0, "memory.bytes", self, "at least 0")
        size = self.memory.batch_size
        require_setting(size is None or size >= 1, "memory.batch_size", self, "at least 1")
        for name in ("rehearsal.alpha", "rehearsal.beta"):
            value = getattr(self.rehearsal, name.partition(".")[2])
            require_setting(0 <= value < math.inf, name, self, "at least 0")
        check_together(self)

    @property
    def task_free(self) -> bool:
        """True if the stream is seen once, without task boundaries."""
        return self.stream.kind in ("online", "blurry")

    @property
    def learner(self) -> type[Learner]:
        """Learner class of the method; its attributes are facts about the method."""
        return LEARNERS[self.method]

    @property
    def masks_to_task(self) -> bool:
        """True if the cross-entropy of new samples covers only the classes of their task."""
        if self.mask == "auto":
            return self.learner.masks == "task" and self.stream.kind == "class"
        return self.mask == "task"

    @property
    def effective_tuning(self) -> TuningConfig:
        """Tuning of the backbone."""
        return self.tuning if self.learner.tunes_backbone else TuningConfig(method="linear")
