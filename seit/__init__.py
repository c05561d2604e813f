"""Turn a corpus into about 1 KB of tokens per image or clip, once, and train from the tokens.

The verbs are the commands of `seit`, with the same names, settings and results::

    seit.tokenize("photos", out="store")
    result = seit.train("store", out="run", recipe="small-cpu", steps=100)
    seit.evaluate("run", store="store").top1

Each takes its input first and everything else by keyword, and returns an object with the values
that the command prints with ``--json``. Settings are passed by the command's flags (``steps=100``)
or by path (``**{"optim.lr": 1e-3}``). Besides the verbs: ``store = seit.open(path)``; ``split =
store["train"]``; ``split[i]``, ``split.tokens[a:b]``, ``split.labels``, ``split.keys``;
``seit.loader(split, batch_size=…)``; ``seit.create_model("vit_small_patch16_224", store)``.

Everything is imported on first use, so that ``import seit`` is fast; so are subpackages such as
``seit.shards`` and ``seit.stream``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seit.api import (
        analyze,
        compress,
        continual,
        convert,
        delete,
        duplicates,
        embed,
        evaluate,
        export,
        filter,  # noqa: A004
        footprint,
        frontier,
        info,
        merge,
        neighbors,
        predict,
        pretrain,
        quickstart,
        sweep,
        tokenize,
        train,
        tune,
        verify,
        view,
    )
    from seit.models import create_model
    from seit.shards import open_store as open  # noqa: A004
    from seit.stream import loader

__version__ = "0.1.0"
__all__ = [
    "analyze",
    "compress",
    "continual",
    "convert",
    "create_model",
    "delete",
    "duplicates",
    "embed",
    "evaluate",
    "export",
    "filter",
    "footprint",
    "frontier",
    "info",
    "loader",
    "merge",
    "neighbors",
    "open",
    "predict",
    "pretrain",
    "quickstart",
    "sweep",
    "tokenize",
    "train",
    "tune",
    "verify",
    "view",
]

_HOMES = {
    "create_model": ("seit.models", "create_model"),
    "loader": ("seit.stream", "loader"),
    "open": ("seit.shards", "open_store"),
}
_ROOMS = (
    *("analysis", "augment", "ingest", "models", "shards", "stores"),
    *("stream", "testing", "tokenizers", "training"),
)


def __dir__() -> list[str]:
    return sorted((*__all__, *_ROOMS, "__version__"))


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return import_module(f"seit.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'seit' has no attribute {name!r}")
    module, attribute = _HOMES.get(name, ("seit.api", name))
    return getattr(import_module(module), attribute)
