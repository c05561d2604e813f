"""Settings of the tuning methods."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from seit.errors import UsageError

Method = Literal[
    "full",
    "linear",
    "bitfit",
    "lora",
    "adalora",
    "adapter",
    "houlsby",
    "adapterbias",
    "prefix",
    "weighted-sum",
]
METHODS: tuple[Method, ...] = get_args(Method)
SLICES = ("q", "k", "v")
"""Targets that are thirds of a fused `qkv`, in the order of its rows."""
TARGETS = (*SLICES, "qkv", "proj", "fc1", "fc2")
ADALORA_SCALE = 8.0
"""Default scale of AdaLoRA's deltas; the paper's recipes have 2.7 to 16. With 1, a few hundred
steps hardly move λ, whose factors start small."""
MOST_INITIAL = 16
"""Maximum ratio of AdaLoRA's initial to its final rank; the paper's recipes have 1.5 to 3."""


@dataclass(frozen=True, kw_only=True)
class TuningConfig:
    """Tuning of a pretrained backbone: the method and its sizes.

    Raises:
        UsageError: a value is out of range.
    """

    method: Method = "lora"
    """`full` trains all weights, `linear` the classifier only. Biases only: `bitfit` (Ben Zaken et
    al., arXiv 2106.10199). Low-rank deltas: `lora` (Hu et al., arXiv 2106.09685), `adalora` (Zhang
    et al., arXiv 2303.10512). Bottlenecks: `adapter` (parallel to attention, as in LAE, arXiv
    2303.10070), `houlsby` (after the MLP, arXiv 1902.00751), `adapterbias` (Fu et al., arXiv
    2205.00305). `prefix`: learned keys and values (Li and Liang, arXiv 2101.00190). `weighted-sum`:
    an average of all hidden states (SUPERB, arXiv 2105.01051)."""
    num_blocks: int | None = None
    """Number of first blocks that get modules; None for all. LAE uses 5 of 12. Ignored by methods
    that add nothing to blocks."""
    rank: int = 8
    """Rank r of each delta of `lora`; final mean rank of the deltas of `adalora`."""
    targets: tuple[str, ...] = ("q", "v")
    """Weights that get a low-rank delta: q, k and v for a separate delta of each third of the fused
    attention weight, or qkv for one delta of all of it; proj, fc1, fc2."""
    alpha: float | None = None
    """Scale of the deltas: alpha/r, or alpha/initial_rank throughout for `adalora`; None for a
    factor of 1, or 8 for `adalora`."""
    learn_scale: bool = False
    """Multiply by a learned number that starts at 1 instead, as LAE does: one for each delta of
    `lora`, each `adapter`, and the keys and the values of each `prefix`."""
    hidden_dim: int = 8
    """Width of the bottleneck of `adapter` and `houlsby`."""
    length: int = 10
    """Keys and values of each block's `prefix`."""
    compensate: bool = True
    """Let a `prefix` add its own attention in full, as LAE does, instead of the share of attention
    to its keys, which is small at first and slows learning."""
    adapterbias_input: Literal["output", "hidden"] = "output"
    """Input of the vector's weight in `adapterbias`: the MLP's output, as in its paper, or its
    hidden features, as in the code of the study on speech (arXiv 2210.06175)."""
    zero_start: bool = True
    """Start `houlsby` and `adapterbias` as the pretrained network; False initializes them as any
    linear layers, as the code of the study on speech (arXiv 2210.06175) does."""
    initial_rank: int | None = None
    """Initial rank r0 of each delta of `adalora`; None for 1.5 · rank."""
    warmup_share: float = 0.1
    """Fraction of the steps, at the start, in which `adalora` keeps all ranks (t_i)."""
    final_share: float = 0.5
    """Fraction of the steps, at the end, in which the ranks of `adalora` are fixed (t_f)."""
    mask_every: int = 10
    """Steps between two rank allocations of `adalora` (ΔT)."""
    orthogonality: float = 0.1
    """Weight γ of the orthogonality penalty of `adalora`."""
    beta1: float = 0.85
    """Decay of the average sensitivity of `adalora`, 0 to below 1."""
    beta2: float = 0.85
    """Decay of the average uncertainty of `adalora`, 0 to below 1."""

    def __post_init__(self) -> None:
        for name, choices in {
            "method": METHODS,
            "adapterbias_input": ("output", "hidden"),
        }.items():
            if getattr(self, name) not in choices:
                raise UsageError(
                    f"tuning.{name} is {getattr(self, name)!r}; expected one of "
                    f"{', '.join(choices)}"
                )
        for name in ("num_blocks", "rank", "hidden_dim", "length", "mask_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"tuning.{name} is {value}; expected at least 1")
        self._check_targets()
        if self.alpha is not None and not 0 < self.alpha < math.inf:
            raise UsageError(f"tuning.alpha is {self.alpha}; expected above 0")
        if not self.rank <= self.begun_rank <= MOST_INITIAL * self.rank:
            raise UsageError(
                f"tuning.initial_rank is {self.initial_rank}; expected tuning.rank to "
                f"{MOST_INITIAL} times that, {self.rank} to {MOST_INITIAL * self.rank}"
            )
        for name in ("warmup_share", "final_share", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"tuning.{name} is {getattr(self, name)}; expected 0 to below 1")
        if self.warmup_share + self.final_share > 1:
            raise UsageError(
                f"tuning.warmup_share and tuning.final_share are {self.warmup_share} and "
                f"{self.final_share}; expected no more than 1 together"
            )
        if not 0 <= self.orthogonality < math.inf:
            raise UsageError(f"tuning.orthogonality is {self.orthogonality}; expected at least 0")

    @property
    def begun_rank(self) -> int:
        """Initial rank r0 of AdaLoRA."""
        return math.ceil(1.5 * self.rank) if self.initial_rank is None else self.initial_rank

    @property
    def begun_scale(self) -> float:
        """Factor of AdaLoRA's deltas, from start to end."""
        return ADALORA_SCALE if self.alpha is None else self.alpha / self.begun_rank

    def _check_targets(self) -> None:
        targets = self.targets
        if not targets or set(targets) - set(TARGETS) or len(set(targets)) < len(targets):
            raise UsageError(
                f"tuning.targets is {', '.join(targets) or 'empty'}; expected some of "
                f"{', '.join(TARGETS)}, each once"
            )
        if "qkv" in targets and set(targets) & set(SLICES):
            raise UsageError(
                "tuning.targets names qkv and a part of it; name either qkv or some of q, k and v"
            )
