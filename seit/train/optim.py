"""The optimiser and its learning rates."""

import math

import torch
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_weight_decay
from torch import nn

from seit.train.config import OptimConfig, ScheduleConfig, TrainConfig


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW; 1-d parameters and those of ``model.no_weight_decay()`` are not decayed."""
    assert isinstance(model, VisionTransformer)
    skip = model.no_weight_decay()
    groups = param_groups_weight_decay(model, config.weight_decay, no_weight_decay_list=skip)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, foreach=True)


def num_steps(schedule: ScheduleConfig, steps_per_epoch: int) -> int:
    """Steps of the run."""
    return schedule.steps or schedule.epochs * steps_per_epoch


def learning_rate(step: int, config: TrainConfig, steps_per_epoch: int) -> float:
    """The rate of ``step`` (from 0): linear warm-up to the peak, then a cosine to ``min_lr``."""
    schedule = config.schedule
    total = num_steps(schedule, steps_per_epoch)
    warmup = schedule.warmup_steps
    if warmup is None:
        warmup = round(schedule.warmup_epochs * steps_per_epoch)
    warmup = min(warmup, total - 1)
    if step < warmup:
        return schedule.warmup_lr + (config.peak_lr - schedule.warmup_lr) * step / warmup
    progress = (step - warmup) / max(1, total - 1 - warmup)
    low = min(schedule.min_lr, config.peak_lr)
    return low + (config.peak_lr - low) * (1 + math.cos(math.pi * progress)) / 2
