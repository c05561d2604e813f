"""Kinds of run: the command that makes each, and the class of its settings.

`run.json` names a run's kind. Runs of earlier versions lack it and are recognized by the one group
of settings that no other kind has.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from seit.errors import UsageError


@dataclass(frozen=True)
class Kind:
    """Kind of run.

    Attributes:
        name: name in `run.json`.
        settings: module and class of its settings, imported on first use.
        mark: a group of settings that only this kind has; None for the plain classifier.
        one_network: whether a finished run is one network with one set of weights.
        classifies: whether that network predicts classes.
        of_tokens: whether that network takes a store's tokens and is used through its run.
        of_sounds: whether that network takes sounds, and weights that the run does not hold.
        command: command that makes such a run, without `seit`.
    """

    name: str
    settings: str
    command: str
    mark: str | None = None
    one_network: bool = True
    classifies: bool = True
    of_tokens: bool = True
    of_sounds: bool = False

    @property
    def settings_class(self) -> type[Any]:
        """Class of the settings."""
        module, _, name = self.settings.partition(":")
        found: type[Any] = getattr(import_module(module), name)
        return found


def _of_tokenizer(name: str, settings: str, command: str, mark: str) -> Kind:
    return Kind(
        name,
        f"seit.tokenizer_training:{settings}",
        command,
        mark=mark,
        one_network=False,
        classifies=False,
        of_tokens=False,
    )


KINDS = (
    Kind(
        "continual",
        "seit.continual_learning:ContinualConfig",
        "continual",
        mark="stream",
        one_network=False,
        classifies=False,
    ),
    Kind(
        "pretrain",
        "seit.pretraining:PretrainConfig",
        "pretrain",
        mark="objective",
        classifies=False,
    ),
    Kind("compress", "seit.compression:CompressConfig", command="compress", mark="compression"),
    Kind(
        "tune-speech",
        "seit.training:SpeechTuneConfig",
        "tune",
        mark="speech",
        of_tokens=False,
        of_sounds=True,
    ),
    Kind("tune", "seit.training:TuneConfig", "tune", mark="tuning"),
    _of_tokenizer("tokenizer", "TokenizerConfig", "tokenizer train", mark="quantizer"),
    _of_tokenizer("token-adapt", "TokenAdaptConfig", "tokenizer adapt", mark="geometry"),
    Kind("train", "seit.training:TrainConfig", "train"),
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


def kind_of(config: Any) -> Kind:
    """Return the kind of run that a config is for."""
    return kind_with(vars(config))
