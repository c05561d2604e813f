"""Precision of forward and backward passes."""

from typing import Any

import torch
from torch import nn

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


def choose_attention(model: nn.Module, config: LoopConfig, device: torch.device) -> None:
    """Choose how timm's attention computes; the weights stay as they are.

    The backward pass of torch's fused attention takes nine times as long in bf16 as in fp32 on a
    CPU (torch 2.15), so that a step in bf16 would gain nothing from matrix units.
    """
    if device.type != "cpu" or compute_dtype(config, device) == torch.float32:
        return
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", False)  # noqa: B010 - unknown to nn.Module's types


def suggest_precision(config: LoopConfig, device: torch.device) -> str | None:
    """Return a line about a faster precision than that of ``config`` on this CPU, if it has one."""
    if device.type != "cpu" or config.run.precision != "auto":
        return None
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.10 on
    if not capabilities.get("amx_bf16"):
        return None
    return "this CPU multiplies matrices of bf16: run.precision bf16 nearly halves a ViT's step"
