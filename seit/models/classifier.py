"""Which weights of a model are its classifier's."""

from torch import nn


def is_of_head(model: nn.Module, key: str) -> bool:
    """Whether a weight is the classifier's, by the names that timm gives for it."""
    named = getattr(model, "pretrained_cfg", {}).get("classifier") or "head"
    names = (named,) if isinstance(named, str) else tuple(named)
    return any(key.startswith(f"{name}.") for name in names)
