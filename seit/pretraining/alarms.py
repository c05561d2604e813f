"""Signs that a pretraining run is learning nothing, logged as they appear.

Past alarms follow from the run's metrics, so a resumed run repeats none.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_LEAST_STD = 0.1
"""Evenly spread features have 1; SimSiam without stop-gradient has 0."""
_LEAST_RANK = 2.0
"""Features on a line have 1."""
_RANK_FALL = 3.0
"""Maximum factor by which the effective rank may fall from its previous maximum."""
_MOST_CODE_SHARE = 0.9
"""Share of masked tokens predicted as the same code; grids of a single color reach a third."""
_CHANCE = 1.2
"""Factor over the share of the most frequent class, below which k-NN accuracy is chance."""
_PATIENCE = 5
"""Consecutive evaluations at chance: half of a run with ten evaluations."""

Figures = Mapping[str, Any]


class Watch:
    """Alarms about the evaluations of a run, each kind once."""

    def __init__(self) -> None:
        self._num_seen = 0
        self._num_at_chance = 0
        """Latest evaluations in a row that were at chance."""
        self._highest_rank = 0.0
        self._said: set[str] = set()

    def see(self, figures: Figures) -> list[str]:
        """Return the alarms about the next evaluation of kinds that no earlier one raised."""
        self._num_seen += 1
        self._num_at_chance = self._num_at_chance + 1 if _is_at_chance(figures) else 0
        found = self._alarms(figures)
        self._highest_rank = max(self._highest_rank, figures.get("effective_rank") or 0.0)
        texts = [text for kind, text in found.items() if kind not in self._said]
        self._said |= found.keys()
        return texts

    def _alarms(self, figures: Figures) -> dict[str, str]:
        """Return the alarms about an evaluation by kind."""
        found = {}
        std, rank = figures.get("feature_std"), figures.get("effective_rank")
        if std is not None and std < _LEAST_STD:
            found["std"] = (
                f"the features are nearly the same for all samples (feature_std {std:.3f}); the "
                "run has collapsed: lower optim.lr, or hide less"
            )
        if rank is not None and rank < _LEAST_RANK:
            found["rank"] = (
                f"the features spread over {rank:.1f} directions only; the run has collapsed: "
                "lower optim.lr, or hide less"
            )
        highest = self._highest_rank
        if rank is not None and rank * _RANK_FALL < highest:
            found["fall"] = (
                f"the features spread over {rank:.1f} directions, after {highest:.1f} before; if "
                "this continues, the run will collapse"
            )
        if self._num_at_chance >= _PATIENCE:
            found["chance"] = (
                f"after {self._num_seen} evaluations neighbors in feature space tell classes no "
                f"better than chance (k-NN {figures['knn_top1']:.2%}); if they should, check "
                "what is hidden and optim.lr"
            )
        share = figures.get("code_share")
        if share is not None and share > _MOST_CODE_SHARE:
            found["codes"] = (
                f"{share:.0%} of all masked tokens are taken for one and the same code; the "
                "network has learned which is most frequent and no more"
            )
        return found


def _is_at_chance(figures: Figures) -> bool:
    found, chance = figures.get("knn_top1"), figures.get("chance")
    return found is not None and chance is not None and found <= _CHANCE * chance


def new_alarms(metrics: Sequence[Figures], figures: Figures) -> list[str]:
    """Return the alarms about ``figures`` that no earlier evaluation in ``metrics`` raised."""
    watch = Watch()
    for entry in _evaluations(metrics):
        watch.see(entry)
    return watch.see(figures)


def alarms_of(metrics: Sequence[Figures]) -> list[str]:
    """Return all alarms of a run, each kind once, with its step."""
    watch = Watch()
    return [
        f"step {entry['step']:,}: {text}"
        for entry in _evaluations(metrics)
        for text in watch.see(entry)
    ]


def _evaluations(metrics: Sequence[Figures]) -> Iterator[Figures]:
    return (entry for entry in metrics if entry["split"] == "val")
