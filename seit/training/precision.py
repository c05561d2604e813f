"""Precision of forward and backward passes."""

import torch

from seit.training.config import LoopConfig

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def compute_dtype(config: LoopConfig, device: torch.device) -> torch.dtype:
    """Return the dtype of a config's precision; `auto` is bf16 on CUDA and fp32 elsewhere."""
    if config.run.precision == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return _DTYPES[config.run.precision]


def make_autocast(config: LoopConfig, device: torch.device) -> torch.autocast:
    """Return the context of forward passes."""
    dtype = compute_dtype(config, device)
    if dtype == torch.float32:
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype=dtype)


def make_scaler(config: LoopConfig, device: torch.device) -> torch.amp.GradScaler:
    """Return the loss scaler, which fp16 needs and other dtypes leave at 1."""
    enabled = compute_dtype(config, device) == torch.float16
    return torch.amp.GradScaler(device.type if enabled else "cpu", enabled=enabled)
