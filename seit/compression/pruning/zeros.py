"""Zeros in the weights of a network: which layers, how many, and when."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from seit.compression.config import CompressionConfig
from seit.compression.derived import RULE, derive_weight, own_weight
from seit.compression.pruning.choice import (
    cubic_share,
    keep_highest,
    keep_two_of_four,
    takes_two_of_four,
)
from seit.compression.pruning.masks import CRITERIA, Mask
from seit.compression.subject import Subject
from seit.compression.weights.layers import Layer, quantizable
from seit.errors import UsageError

EVERY = 10
"""Steps between choices of masks, while the share of zeros grows."""
RAMP = 0.5
"""Share of the steps in which it grows; in the others the masks are fixed."""


@dataclass(frozen=True)
class Zeros:
    """Masks on the weights of a network.

    Attributes:
        masked: names of the masked layers.
        in_groups: whether two of every four neighboring inputs are kept.
        share: final share of zeros.
        is_cubic: whether it is reached gradually.
    """

    masked: tuple[str, ...]
    in_groups: bool
    share: float
    is_cubic: bool

    @classmethod
    def start(cls, subject: Subject, config: CompressionConfig) -> "Zeros | None":
        """Put masks on the network of a subject; None if only parts are removed.

        Raises:
            UsageError: the pattern or the criterion does not fit.
        """
        in_groups, kind = "2:4" in config.pattern, CRITERIA[config.criterion]
        share = config.shares.get("2:4") or config.shares.get("unstructured")
        if share is None:
            return None
        if kind.learns and config.pruning == "one-shot":
            raise UsageError(
                f"the criterion {config.criterion} learns what to keep in training, and one-shot "
                "removes before; choose --compression.pruning cubic or another criterion"
            )
        layers = _prunable(subject.model, in_groups)
        for name, mask in kind.of_layers(subject, layers).items():
            derive_weight(subject.model.get_submodule(name), mask)
        zeros = cls(
            masked=tuple(layer.name for layer in layers),
            in_groups=in_groups,
            share=share,
            is_cubic=config.pruning == "cubic",
        )
        if not zeros.is_cubic:
            zeros.choose(subject.model, share)
        return zeros

    @torch.no_grad()
    def choose(self, model: nn.Module, share: float) -> None:
        """Choose the masks again, for a share of zeros in the masked layers."""
        masks = self.masks(model)
        scores = {
            name: mask.choices(own_weight(model.get_submodule(name)))
            for name, mask in masks.items()
        }
        if self.in_groups:
            kept = {name: keep_two_of_four(one, share) for name, one in scores.items()}
        else:
            kept = keep_highest(scores, share, scope=next(iter(masks.values())).scope)
        for name, mask in masks.items():
            mask.keep(kept[name])

    def after_update(self, model: nn.Module) -> None:
        """Take note of the gradients of an update."""
        pairs = [
            (mask, own_weight(model.get_submodule(name)))
            for name, mask in self.masks(model).items()
        ]
        finite = [one.grad.isfinite().all() for _, one in pairs if one.grad is not None]
        taken = torch.stack(finite).all()
        for mask, weight in pairs:
            mask.observe(weight, taken=taken)

    def after_step(self, model: nn.Module, step: int, total: int) -> None:
        """Choose the masks again after step ``step`` (from 0) of ``total``, if it is time.

        The share of zeros never falls, though ``total`` may grow when a run resumes.
        """
        ramp, done = max(1, round(RAMP * total)), step + 1
        if self.is_cubic and done <= ramp and (done % EVERY == 0 or done == ramp):
            share = max(cubic_share(self.share, done, ramp), self.sparsity(model))
            self.choose(model, min(share, self.share))

    def masks(self, model: nn.Module) -> dict[str, Mask]:
        """Return the masks of a network or of its copy, by layer."""
        found = {name: model.get_submodule(name).get_submodule(RULE) for name in self.masked}
        return {name: mask for name, mask in found.items() if isinstance(mask, Mask)}

    def sparsity(self, model: nn.Module) -> float:
        """Return the share of zeros in the masked layers, 0–1."""
        masks = self.masks(model).values()
        kept = sum(int(mask.kept.count_nonzero()) for mask in masks)
        return 1 - kept / sum(mask.kept.numel() for mask in masks)

    def rows(self, model: nn.Module) -> Sequence[tuple[str, int, int]]:
        """Return name, weights and kept weights of each masked layer."""
        return [
            (name, mask.kept.numel(), int(mask.kept.count_nonzero()))
            for name, mask in self.masks(model).items()
        ]

    def describe(self, model: nn.Module) -> Mapping[str, Any]:
        """Return the entry of `run.json`."""
        layers = {name: {"weights": n, "kept": kept} for name, n, kept in self.rows(model)}
        return {"sparsity": self.sparsity(model), "layers": layers}


def _prunable(model: nn.Module, in_groups: bool) -> list[Layer]:
    """Return the layers to mask: all but the first and the classifier that fit the pattern."""
    layers = [layer for layer in quantizable(model) if not layer.is_edge]
    fitting = [one for one in layers if not in_groups or takes_two_of_four(one.module.weight)]
    if not fitting:
        why = "with a multiple of four inputs " if in_groups else ""
        raise UsageError(
            f"a {type(model).__name__} has no layers {why}between the first and the classifier to "
            "prune; choose another pattern or backbone"
        )
    return fitting
