"""Settings of a continual run: its stream, its learner and its memory."""

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
    """`class`: new classes in every task. `domain`: the same classes, from another source in every
    task. `online`: as `class`, but each sample is seen once and nobody says where a task ends.
    `blurry`: as `online`, and some classes come in all tasks (i-Blurry, arXiv 2110.10031)."""
    increment: int = 2
    """Classes of a task of a `class` or `online` stream."""
    initial: int | None = None
    """Classes of its first task; None for as many as of the others (B0), half of all for B50."""
    order: str = "natural"
    """Order of the classes: `natural`, `pilot` (numpy's permutation by the seed 1993),
    `pilot:SEED`, or a file of class numbers or names. The first ones of a `blurry` stream are its
    disjoint ones."""
    domains: str | None = None
    """A CSV file of key and domain, or `folder` for the first folder of each key."""
    tasks: int = 5
    """Tasks of a `blurry` stream."""
    disjoint_share: float = 0.5
    """Share of the classes of a `blurry` stream that come in one task only, 0–1."""
    blur_share: float = 0.1
    """Share of the other classes' samples that come in other tasks than their own, 0–1."""
    eval_every: int = 0
    """Samples between two evaluations of a stream that is seen once; 0 makes ten of them. There is
    also one at the end of each task. A step's samples are never on both sides of an evaluation."""


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """Memory of samples that were seen."""

    bytes: int = 0
    """All that exemplars may take, labels and logits that are kept with them included."""
    medium: str = "tokens"
    """As what they are kept: `tokens`, packed; `raw`, `png` or `jpeg:QUALITY` for pictures at the
    tokenizer's resolution, which are tokenized again when they are replayed."""
    source: str | None = None
    """SRC of the pictures, for a medium of pictures."""
    policy: Literal["auto", "reservoir", "balanced"] = "auto"
    """Which samples are kept: `reservoir` each with equal chance, `balanced` each class in equal
    parts; `auto` is balanced, and reservoir where nobody tells tasks apart. iCaRL and GDumb have
    policies of their own."""
    batch_size: int | None = None
    """Samples of a step that come from memory; None for as many as new ones."""


@dataclass(frozen=True, kw_only=True)
class LaeConfig:
    """Learning, accumulation, ensemble (Gao et al., ICCV 2023, arXiv 2303.10070)."""

    freeze: float = 0.6
    """Share of a task's steps, from the second task on, in which only the classifier learns."""
    ema_decay: float = 0.9999
    """Decay of the offline module, per step."""
    ema_absorb: float | None = None
    """Instead of a decay: the share of the online module that a task of any length brings into the
    offline one. The official 0.9999 comes to 0.099 in 1,040 steps (CIFAR-100) and to 0.39 in 5,000
    (ImageNet-R), and to 0.02 in 200, which leaves the offline module what it was."""
    experts: Literal["both", "online", "offline"] = "both"
    """Which modules answer; `both` takes, for each class, the surer one."""


@dataclass(frozen=True, kw_only=True)
class RehearsalConfig:
    """Weights of the parts of DER++'s loss."""

    alpha: float = 0.5
    """DER++: weight of the distance to the logits that were kept (arXiv 2004.07211)."""
    beta: float = 0.5
    """DER++: weight of the cross-entropy of kept samples."""


@dataclass(frozen=True, kw_only=True)
class RanpacConfig:
    """Random projections and class prototypes (McDonnell et al., arXiv 2307.02251)."""

    dim: int = 2000
    """Size of the projection; 10,000 in the paper, whose Gram matrix takes 800 MB."""


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
        UsageError: for values that do not fit together.
    """

    method: Method = "lae"
    """Method that learns."""
    augment: AugmentConfig = field(default_factory=_views)
    """The augmentations; nothing is mixed."""
    optim: OptimConfig = field(default_factory=_learning)
    """The optimizer, which starts from scratch with every task. LAE's rate is for batches of 24.
    With a `weight_decay` rows of the classifier decay while other classes are learned."""
    schedule: ScheduleConfig = field(default_factory=_schedule)
    """Schedule of every task: `epochs` or `steps` are those of one task. A `min_lr` above the rate
    keeps the rate as it is. A stream that is seen once has one schedule, its one pass, whose length
    the samples say: `epochs` and `steps` are passed over."""
    ema: EmaConfig = field(default_factory=lambda: EmaConfig(decay=0.0))
    """Has no use here: what a method averages is a setting of its own."""
    tuning: TuningConfig = field(default_factory=lambda: TuningConfig(method="adapter"))
    """Tuning of the backbone; methods that leave it as it is ignore this."""
    stream: StreamConfig = field(default_factory=StreamConfig)
    """Stream of samples."""
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    """Memory of samples."""
    mask: Literal["auto", "task", "seen"] = "auto"
    """Among which classes the cross-entropy of new samples chooses: those of the task (LAE's local
    one), or all that were seen. `auto`: of the task for LAE, seq-ft and frozen-head, seen for ER,
    DER++ and joint, and seen for all in other streams than `class`. Other methods have no such
    loss."""
    lae: LaeConfig = field(default_factory=LaeConfig)
    """LAE."""
    rehearsal: RehearsalConfig = field(default_factory=RehearsalConfig)
    """DER++."""
    ranpac: RanpacConfig = field(default_factory=RanpacConfig)
    """RanPAC."""

    extensible: ClassVar[frozenset[str]] = frozenset()
    """None: tasks that were learned already would be of another length."""

    @override
    def reinterpreted(self) -> list[str]:
        """Name also those of the tuning method."""
        return [*super().reinterpreted(), *TUNINGS[self.tuning.method].reinterpreted(self.tuning)]

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
        """Return whether the stream is seen once and does not tell tasks."""
        return self.stream.kind in ("online", "blurry")

    @property
    def learner(self) -> type[Learner]:
        """Class of the method, whose attributes are facts about it."""
        return LEARNERS[self.method]

    @property
    def masks_to_task(self) -> bool:
        """Return whether new samples' cross-entropy chooses among the task's classes alone."""
        if self.mask == "auto":
            return self.learner.masks == "task" and self.stream.kind == "class"
        return self.mask == "task"

    @property
    def effective_tuning(self) -> TuningConfig:
        """Tuning of the backbone."""
        return self.tuning if self.learner.tunes_backbone else TuningConfig(method="linear")
