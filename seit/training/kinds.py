"""Kinds of run: the command that makes each, and the class of its settings.

`run.json` names a run's kind. Runs of earlier versions have no such entry; they are recognized by
the one group of settings that no other kind has.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module

from seit.errors import UsageError
from seit.training.config import LoopConfig


@dataclass(frozen=True)
class Kind:
    """One kind of run.

    Attributes:
        name: what `run.json` calls it; also the command that makes such a run, `seit NAME`.
        settings: module and class of its settings, imported when first used.
        mark: a group of settings that only this kind has; None for the plain classifier.
        one_network: whether a finished run is one network with one set of weights.
        classifies: whether that network names classes.
    """

    name: str
    settings: str
    mark: str | None = None
    one_network: bool = True
    classifies: bool = True

    @property
    def settings_class(self) -> type[LoopConfig]:
        """The class of the settings."""
        module, _, name = self.settings.partition(":")
        found: type[LoopConfig] = getattr(import_module(module), name)
        return found


KINDS = (
    Kind(
        "continual",
        "seit.continual_learning:ContinualConfig",
        mark="stream",
        one_network=False,
        classifies=False,
    ),
    Kind("pretrain", "seit.pretraining:PretrainConfig", mark="objective", classifies=False),
    Kind("tune", "seit.training:TuneConfig", mark="tuning"),
    Kind("train", "seit.training:TrainConfig"),
)


def kind_named(name: str) -> Kind:
    """Return the kind that `run.json` calls ``name``.

    Raises:
        UsageError: there is none.
    """
    for kind in KINDS:
        if kind.name == name:
            return kind
    known = ", ".join(kind.name for kind in KINDS)
    raise UsageError(f"the run is of kind {name!r}; this version of seit knows {known}: update it")


def kind_with(groups: Iterable[str]) -> Kind:
    """Return the kind whose settings have these groups."""
    names = set(groups)
    return next(kind for kind in KINDS if kind.mark is None or kind.mark in names)


def kind_of(config: LoopConfig) -> Kind:
    """Return the kind of run that these settings describe."""
    return kind_with(vars(config))
