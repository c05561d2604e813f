"""Turn an image corpus into about 1 KB of tokens per instance, and train straight from the tokens.

Five ideas: ``store = seit.open(path)``; ``split = store["train"]``;
``seit.loader(split, batch_size=…)``; ``seit.create_model("vit_small_patch16_224", store)``;
``seit.train(config, store, out=…)``. Each is imported when first used, so that ``import seit`` is
quick; so are the rooms behind them, such as ``seit.shards`` and ``seit.stream``. Stores are made by
``seit.tokenize(source, store)``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seit.ingest import tokenize
    from seit.models import create_model
    from seit.shards import open_store as open  # noqa: A004
    from seit.stream import loader
    from seit.training import train

__version__ = "0.1.0"
__all__ = ["create_model", "loader", "open", "tokenize", "train"]

_HOMES = {
    "create_model": ("seit.models", "create_model"),
    "loader": ("seit.stream", "loader"),
    "open": ("seit.shards", "open_store"),
    "tokenize": ("seit.ingest", "tokenize"),
    "train": ("seit.training", "train"),
}
_ROOMS = ("augment", "ingest", "models", "shards", "stores", "stream", "testing", "tokenizers")


def __dir__() -> list[str]:
    return sorted((*__all__, *_ROOMS, "__version__"))


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return import_module(f"seit.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'seit' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
