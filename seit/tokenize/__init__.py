"""The offline job: sources → tokenizer → shards.

Names are imported when first used: processes that only decode need no tokenizer.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seit.tokenize.config import TokenizeConfig
    from seit.tokenize.estimating import Estimate, estimate
    from seit.tokenize.fit import fit_and_measure, measure_on_corpus
    from seit.tokenize.job import TokenizeResult, tokenize
    from seit.tokenize.updating import UpdateResult, update

__all__ = [
    "Estimate",
    "TokenizeConfig",
    "TokenizeResult",
    "UpdateResult",
    "estimate",
    "fit_and_measure",
    "measure_on_corpus",
    "tokenize",
    "update",
]

_HOMES = {
    "Estimate": "estimating",
    "TokenizeConfig": "config",
    "TokenizeResult": "job",
    "estimate": "estimating",
    "fit_and_measure": "fit",
    "measure_on_corpus": "fit",
    "tokenize": "job",
    "UpdateResult": "updating",
    "update": "updating",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'seit.tokenize' has no attribute {name!r}")
    return getattr(import_module(f"seit.tokenize.{_HOMES[name]}"), name)
