"""Accuracy control: layers go back to float, the most sensitive first, until accuracy is kept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seit.progress import Count
from seit.report import Section, table

Top1 = Callable[[frozenset[str]], float]
"""Returns the top-1 accuracy on the dev samples, 0–1, with this set of layers left in float."""


@dataclass(frozen=True, kw_only=True)
class Controlled:
    """Outcome of accuracy control.

    Attributes:
        kept: names of the layers that stay in float, in the order in which they went back.
        top1_before: accuracy of the float network on the dev samples, 0–1.
        top1: accuracies with the first 0, 1, … of these layers in float, 0–1.
        max_drop: the largest drop allowed.
        layers: number of layers that could be compressed.
        samples: number of dev samples.
    """

    kept: tuple[str, ...]
    top1_before: float
    top1: tuple[float, ...]
    max_drop: float
    layers: int
    samples: int

    @property
    def drop(self) -> float:
        """Drop of top-1 on the dev samples in the end."""
        return self.top1_before - self.top1[-1]

    def note(self) -> Mapping[str, Any]:
        """Return the entry of `run.json`."""
        return {
            "max_drop": self.max_drop,
            "drop": self.drop,
            "kept_float": list(self.kept),
            "top1_before": self.top1_before,
            "top1": list(self.top1),
            "samples": self.samples,
        }

    def section(self) -> Section:
        """Return the section of the report."""
        names = ("none", *self.kept)
        rows = [
            [name, f"{top1:.2%}", f"{self.top1_before - top1:+.2%}"]
            for name, top1 in zip(names, self.top1, strict=True)
        ]
        caption = (
            f"{len(self.kept)} of {self.layers} layers stay in float. Top-1 on {self.samples:,} "
            f"training samples, {self.top1_before:.2%} in float; a drop of {self.max_drop:.2%} is "
            "allowed."
        )
        header = ["back in float", "top-1 (dev)", "drop"]
        return Section("Accuracy control", table(rows, header=header, caption=caption))


def keep_accuracy(
    layers: Sequence[str],
    top1_of: Top1,
    *,
    top1_before: float,
    max_drop: float,
    samples: int,
    order: Callable[[], Sequence[str]],
    progress: Count | None = None,
) -> Controlled:
    """Leave as many layers in float as it takes to keep the accuracy.

    Args:
        layers: names of the layers that can be compressed.
        top1_of: accuracy with some layers left in float; with all of them it is ``top1_before``.
        top1_before: accuracy of the float network on the same samples, 0–1.
        max_drop: the largest drop allowed, 0–1.
        samples: number of these samples, for the record.
        order: returns the layers, the most sensitive first; called if any has to go back.
        progress: called after each evaluation.
    """
    kept: list[str] = []
    top1 = [top1_of(frozenset())]
    waiting = list(order()) if top1_before - top1[-1] > max_drop else []
    while waiting and top1_before - top1[-1] > max_drop:
        kept.append(waiting.pop(0))
        top1.append(top1_of(frozenset(kept)))
        if progress is not None:
            progress(len(kept), len(layers))
    return Controlled(
        kept=tuple(kept),
        top1_before=top1_before,
        top1=tuple(top1),
        max_drop=max_drop,
        layers=len(layers),
        samples=samples,
    )


def most_sensitive_first(harm: Mapping[str, float]) -> list[str]:
    """Order layers by the harm that compressing each one alone does, the greatest first."""
    return sorted(harm, key=lambda name: -harm[name])
