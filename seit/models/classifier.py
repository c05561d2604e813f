"""Recognize the classifier's weights of a model."""

from torch import nn


def is_of_head(model: nn.Module, key: str) -> bool:
    """Return True if a weight is the classifier's, by timm's names for it."""
    named = getattr(model, "pretrained_cfg", {}).get("classifier") or "head"
    names = (named,) if isinstance(named, str) else tuple(named)
    return any(key.startswith(f"{name}.") for name in names)
