"""Space of settings: lists of choices, and ranges of numbers.

Draws are counter-based: that of a setting in a trial depends on the seed, the trial's number and
the setting's name alone.
"""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from typing_extensions import override

from seit.config import check_names, read_yaml, setting_names
from seit.errors import UsageError
from seit.training.config import LENGTHS, TrainConfig

FIXED = LENGTHS | {
    "data.train_split",
    "data.val_split",
    "data.pixels",
    "data.root",
    "run.checkpoint_every",
    "run.device",
    "run.eval_every",
    "run.seed",
}
"""Settings that all trials share."""
_RANGE = frozenset({"low", "high", "log"})
_MAX_SETTINGS = 64
_LARGEST = 1e30
_UNIT = 1 << 64


class Values(ABC):
    """Values of one setting."""

    @abstractmethod
    def at(self, share: float) -> Any:
        """Return the value at a share of the distribution, 0 to below 1."""

    @abstractmethod
    def describe(self) -> Any:
        """Return the values as the space's file names them."""


@dataclass(frozen=True)
class Choice(Values):
    """One of several values, equally likely."""

    values: tuple[Any, ...]

    @override
    def at(self, share: float) -> Any:
        return self.values[int(share * len(self.values))]

    @override
    def describe(self) -> Any:
        return list(self.values)


@dataclass(frozen=True)
class Range(Values):
    """Numbers from ``low`` to ``high``, uniform, or uniform in the logarithm.

    Whole numbers, with both ends, if both ends are.
    """

    low: float
    high: float
    log: bool = False

    @property
    def is_whole(self) -> bool:
        """True if the values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @override
    def at(self, share: float) -> Any:
        low, high = (self.low - 0.5, self.high + 0.5) if self.is_whole else (self.low, self.high)
        if self.log:
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        value = min(max(value, self.low), self.high)
        return round(value) if self.is_whole else value

    @override
    def describe(self) -> Any:
        return {one.name: getattr(self, one.name) for one in fields(self)}


@dataclass(frozen=True)
class Space:
    """Values of the settings to search, by dotted name."""

    values: Mapping[str, Values]

    @classmethod
    def read(cls, given: Path | str | Mapping[str, Any]) -> "Space":
        """Read a space from a YAML file, or from a mapping.

        Raises:
            UsageError: it is missing, empty, names unknown settings, a setting twice or no range,
                or has values that JSON does not.
        """
        origin = "the space" if isinstance(given, Mapping) else f"the space {given}"
        body = given if isinstance(given, Mapping) else read_yaml(Path(given))
        named = _walk(body, "", origin)
        values = dict(named)
        twice = sorted(
            name for name, count in Counter(name for name, _ in named).items() if count > 1
        )
        if twice:
            raise UsageError(f"{origin} names {twice[0]} more than once; name it once")
        if not 1 <= len(values) <= _MAX_SETTINGS:
            raise UsageError(
                f"{origin} names {len(values)} settings; it takes 1 to {_MAX_SETTINGS}, such as "
                "`optim.lr: {low: 1.0e-4, high: 1.0e-2, log: true}` or `model.depth: [2, 4]`"
            )
        check_names(values, set(setting_names(TrainConfig)), origin=origin)
        shared = sorted(FIXED & values.keys())
        if shared:
            raise UsageError(f"{origin} names {shared[0]}, which all trials share; leave it out")
        return cls(values)

    def draw(self, trial: int, *, seed: int) -> dict[str, Any]:
        """Return the settings of a trial, by dotted name."""
        return {name: one.at(_share(f"{seed}/{trial}/{name}")) for name, one in self.values.items()}

    def describe(self) -> dict[str, Any]:
        """Return the space as plain values."""
        return {name: one.describe() for name, one in self.values.items()}


def _share(text: str) -> float:
    """Return a number from 0 to below 1, uniform over texts."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    return min(number / _UNIT, math.nextafter(1.0, 0.0))


def _walk(body: Mapping[str, Any], prefix: str, origin: str) -> list[tuple[str, Values]]:
    found: list[tuple[str, Values]] = []
    for key, value in body.items():
        name = f"{prefix}{key}"
        if isinstance(value, list):
            found.append((name, _choice(value, name, origin)))
        elif isinstance(value, Mapping) and not {"low", "high"} & value.keys():
            found += _walk(value, f"{name}.", origin)
        elif isinstance(value, Mapping):
            found.append((name, _range(value, name, origin)))
        else:
            found.append((name, _choice([value], name, origin)))
    return found


def _choice(values: Sequence[Any], name: str, origin: str) -> Choice:
    if not values:
        raise UsageError(f"{origin} lists no value for {name}; list at least one")
    for value in values:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{origin} gives {name} the value {str(value)[:100]!r} ({type(value).__name__}), "
                "which JSON does not have; give a finite number, text, true, false or null"
            ) from error
    return Choice(tuple(values))


def _range(body: Mapping[str, Any], name: str, origin: str) -> Range:
    low, high, log = (body.get(key, False) for key in ("low", "high", "log"))
    low, high = _number(low), _number(high)
    fits = (
        body.keys() <= _RANGE
        and isinstance(log, bool)
        and low is not None
        and high is not None
        and -_LARGEST < low <= high < _LARGEST
        and (not log or low > 0)
    )
    if not fits:
        raise UsageError(
            f"{origin} gives {name} the range {dict(body)}; it takes low and high, low at most "
            "high, and log: true only above 0"
        )
    assert low is not None
    assert high is not None
    number = _number_type(name)
    if number is not None:
        ends = number(low), number(high)
        if number is int and ends != (low, high):
            raise UsageError(
                f"{origin} gives {name} the range {dict(body)}, and it is a whole number; take "
                "whole numbers as low and high"
            )
        low, high = ends
    return Range(low, high, log)


def _number_type(name: str) -> type[int] | type[float] | None:
    """Return the type of a setting's numbers; None if it has both types, or none."""
    hint: Any = TrainConfig
    for part in name.split("."):
        hint = get_type_hints(hint).get(part) if is_dataclass(hint) else None
    found = {int, float} & {hint, *get_args(hint)}
    return found.pop() if len(found) == 1 else None


def _number(value: Any) -> float | None:
    """Return a number, also one that YAML takes for text, such as 1e-4; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None
