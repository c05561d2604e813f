"""Optimizer and learning rate schedule."""

import math
from dataclasses import replace
from typing import Any

import torch
from timm.optim import Lamb, Muon, param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from seit.errors import UsageError
from seit.training.config import LoopConfig, OptimConfig, ScheduleConfig

_LR_SCALE = "lr_scale"
_NOT_MATRICES = ("*embed*", "*token*")
"""Parameters that Muon leaves to AdamW, in addition to vectors and the classifier."""


def make_optimizer(
    model: nn.Module, config: OptimConfig, device: torch.device
) -> torch.optim.Optimizer:
    """Return the optimizer of a timm model; no decay of 1-d parameters and ``no_weight_decay()``.

    A module's ``rate_factors``, if it has them, multiply the learning rates of its own parameters,
    by name.

    Raises:
        UsageError: the model does not name its layers, which layer decay needs.
    """
    groups = _apart(_groups(model, config), model)
    if config.name == "lamb":
        # Disable its own clipping in favor of `clip_grad`.
        return Lamb(groups, lr=config.lr, betas=config.betas, eps=config.eps, max_grad_norm=None)
    if config.name == "muon":
        return Muon(groups, lr=config.lr, betas=config.betas, eps=config.eps, nesterov=True)
    return torch.optim.AdamW(
        groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=device.type != "mps"
    )


def _groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    skip: set[str] = getattr(model, "no_weight_decay", set)()
    fallback: set[str] = set()
    if config.name == "muon":
        classifier = getattr(model, "pretrained_cfg", {}).get("classifier") or "head"
        names = [classifier] if isinstance(classifier, str) else classifier
        fallback = {*_NOT_MATRICES, *(f"{name}.*" for name in names)}
    if config.layer_decay == 1:
        groups: list[dict[str, Any]] = param_groups_weight_decay(
            model, config.weight_decay, no_weight_decay_list=skip, fallback_list=fallback
        )
        return groups
    if not hasattr(model, "group_matcher"):
        raise UsageError(
            f"a {type(model).__name__} does not name its layers, so optim.layer_decay must be 1"
        )
    layered: list[dict[str, Any]] = param_groups_layer_decay(
        model,
        config.weight_decay,
        no_weight_decay_list=skip,
        fallback_list=fallback,
        layer_decay=config.layer_decay,
    )
    return layered


def _apart(groups: list[dict[str, Any]], model: nn.Module) -> list[dict[str, Any]]:
    """Return the groups, with parameters of another learning rate in groups of their own."""
    factors = {
        id(module.get_parameter(name)): factor
        for module in model.modules()
        for name, factor in getattr(module, "rate_factors", {}).items()
    }
    if not factors:
        return groups
    found = []
    for group in groups:
        by_factor: dict[float, list[nn.Parameter]] = {}
        for one in group["params"]:
            by_factor.setdefault(factors.get(id(one), 1.0), []).append(one)
        for factor, params in by_factor.items():
            scale = group.get(_LR_SCALE, 1.0) * factor
            found.append({**group, "params": params, _LR_SCALE: scale})
    return found


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of each parameter group to ``rate`` times its layer's factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(_LR_SCALE, 1.0)


def num_steps(schedule: ScheduleConfig, steps_per_epoch: int) -> int:
    """Return the steps of the run."""
    return schedule.steps or schedule.epochs * steps_per_epoch


def count_in_steps(schedule: ScheduleConfig, steps_per_epoch: int) -> ScheduleConfig:
    """Return the same schedule in steps, for data of another number of steps per epoch."""
    total, warmup = num_steps(schedule, steps_per_epoch), _warmup(schedule, steps_per_epoch)
    return replace(schedule, steps=total, warmup_steps=warmup)


def _warmup(schedule: ScheduleConfig, steps_per_epoch: int) -> int:
    """Return the steps of warm-up, as they are set."""
    if schedule.warmup_steps is not None:
        return schedule.warmup_steps
    return round(schedule.warmup_epochs * steps_per_epoch)


def warmup_remark(config: LoopConfig, steps_per_epoch: int) -> str | None:
    """Return a remark on a warm-up that leaves the rate less than half of the run to fall."""
    schedule = config.schedule
    total, warmup = num_steps(schedule, steps_per_epoch), _warmup(schedule, steps_per_epoch)
    if 2 * warmup <= total or schedule.min_lr >= config.peak_lr:
        return None
    return (
        f"the learning rate rises for {min(warmup, total):,} of {total:,} steps and hardly falls; "
        f"set schedule.warmup_steps, such as to {max(1, total // 20):,}"
    )


def learning_rate(step: int, config: LoopConfig, steps_per_epoch: int) -> float:
    """Return the rate of ``step`` (from 0): linear warm-up to the peak, cosine to ``min_lr``."""
    schedule = config.schedule
    total = num_steps(schedule, steps_per_epoch)
    warmup = min(_warmup(schedule, steps_per_epoch), total - 1)
    if step < warmup:
        return schedule.warmup_lr + (config.peak_lr - schedule.warmup_lr) * step / warmup
    progress = (step - warmup) / max(1, total - 1 - warmup)
    low = min(schedule.min_lr, config.peak_lr)
    return low + (config.peak_lr - low) * (1 + math.cos(math.pi * progress)) / 2
