"""Recognition of a model's classifier weights."""

from torch import nn


def is_of_head(model: nn.Module, key: str) -> bool:
    """Return whether a weight belongs to the classifier, by timm's names for it."""
    named = getattr(model, "pretrained_cfg", {}).get("classifier") or "head"
    names = (named,) if isinstance(named, str) else tuple(named)
    return any(key.startswith(f"{name}.") for name in names)
