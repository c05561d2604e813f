"""Settings of a frontier comparison and of each of its runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from seit.analysis.frontier.points import DEFAULT_POINTS, FITTED, Point, parse_points
from seit.augment import AugmentConfig
from seit.config import build, flatten, merge, nest, read_yaml, to_mapping
from seit.documents import as_record
from seit.errors import UsageError
from seit.ingest import TokenizeConfig
from seit.recipes import find_recipe
from seit.training import OF_THE_MACHINE, TrainConfig, count_in_steps

_VARIED = ("data.pixels", "data.fraction", "run.seed", "schedule.steps", "run.device")


@dataclass(frozen=True, kw_only=True)
class FrontierConfig:
    """Settings of a frontier comparison.

    Attributes:
        points: points to compare; see `seit.analysis.frontier.points`.
        recipe: recipe of every run.
        settings: changes to the recipe, from a setting's path to its value.
        steps: steps of each run; None for the recipe's length.
        seeds: runs per point.
        seed: first of the seeds.
        device: training device.
        size: side in pixels of the squares that tokenizers and networks take; None for 256.
        codes: codebook size K of `tokens-patch`.
        val_fraction: share of pictures for validation if SRC has no splits of its own.
        workers: pictures decoded in parallel; None for one per core.
    """

    points: tuple[str, ...] = DEFAULT_POINTS
    recipe: str = "small-cpu"
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    seeds: int = 3
    seed: int = 0
    device: str = "auto"
    size: int | None = None
    codes: int = 1024
    val_fraction: float = 0.1
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise UsageError(f"seeds is {self.seeds}; expected at least 1")
        for name in _VARIED:
            if name in self.settings:
                flag = name.rpartition(".")[2]
                hint = f"; pass --{flag}" if hasattr(self, flag) else ""
                raise UsageError(f"{name} is set by the comparison itself{hint}")

    @cached_property
    def parsed_points(self) -> tuple[Point, ...]:
        """Parsed points.

        Raises:
            UsageError: a name is invalid.
        """
        return parse_points(self.points)

    @cached_property
    def base(self) -> TrainConfig:
        """Shared settings of all runs, with the first seed.

        Raises:
            UsageError: the recipe or a setting does not exist.
        """
        own = {"run.seed": self.seed, "run.device": self.device}
        if self.steps is not None:
            own["schedule.steps"] = self.steps
        recipe = read_yaml(find_recipe(self.recipe).path)
        flat = {**self.settings, **own}
        return build(TrainConfig, merge(recipe, nest(flat, origin="settings")), origin=self.recipe)

    def train_config(
        self, point: Point, *, pixels: Path | str | None, seed: int, samples: int
    ) -> TrainConfig:
        """Return the settings of one run; ``pixels`` is its source if it does not use tokens.

        Augmentations of the other kind of input, which a run would refuse, keep their defaults. A
        subset takes as many steps as all ``samples`` of the training split do.
        """
        usual, augment = AugmentConfig(), self.base.augment
        if pixels is None:
            augment = replace(augment, pixel_flip_prob=usual.pixel_flip_prob, jitter=usual.jitter)
        else:
            augment = replace(augment, flip_prob=usual.flip_prob, crop_size=usual.crop_size)
        data = replace(
            self.base.data,
            pixels=None if pixels is None else str(pixels),
            fraction=point.fraction,
        )
        run, schedule = replace(self.base.run, seed=seed), self.base.schedule
        if point.fraction < 1:
            schedule = count_in_steps(schedule, max(1, samples // data.batch_size))
        return replace(self.base, data=data, augment=augment, run=run, schedule=schedule)

    def tokenize_config(self, point: Point | None) -> TokenizeConfig:
        """Return the settings of a point's store; None for the store of the labels of pixels."""
        tokenizer = point.tokenizer if point else FITTED
        codes = self.codes if point is None or point.codes is None else point.codes
        return TokenizeConfig(
            tokenizer=tokenizer,
            codes=codes if tokenizer == FITTED else None,
            size=self.size,
            val_fraction=self.val_fraction,
            seed=self.seed,
            workers=self.workers,
        )

    def record(self, fingerprint: str) -> dict[str, Any]:
        """Return all that determines the result of a point and seed; ``fingerprint`` is SRC's."""
        values = {
            "source": fingerprint,
            "size": self.size,
            "codes": self.codes,
            "val_fraction": self.val_fraction,
            "train": to_mapping(self.base),
        }
        return dict(json.loads(json.dumps(values)))


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names of settings that differ between two records, ignoring those of the machine.

    Unlike a single run, a comparison cannot be extended, or its points would differ in training.

    Raises:
        UsageError: the earlier one is not a valid record.
    """
    changed = []
    before, after = _flat(earlier), _flat(now)
    for name in after:
        if name == "source" and before.get(name) != after[name]:
            changed.append("the files of SRC have changed")
        elif name not in OF_THE_MACHINE and before.get(name) != after[name]:
            changed.append(f"{name} was {before.get(name)!r} and is {after[name]!r}")
    return changed


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record by dotted names, with defaults for settings newer than it."""
    origin = "the settings that were saved"
    saved = as_record(record.get("train", {}), dict[str, Any], origin=origin)
    train = build(TrainConfig, saved, origin=origin)
    others = {name: value for name, value in record.items() if name != "train"}
    return {**others, **flatten(to_mapping(train))}
