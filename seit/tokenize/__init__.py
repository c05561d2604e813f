"""The offline job: sources → tokenizer → shards.

Names are imported when first used: processes that only decode need no tokenizer.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seit.tokenize.config import TokenizeConfig
    from seit.tokenize.estimate import Estimate, estimate
    from seit.tokenize.fit import fit_and_measure, measure_on_corpus
    from seit.tokenize.job import TokenizeResult, tokenize

__all__ = [
    "Estimate",
    "TokenizeConfig",
    "TokenizeResult",
    "estimate",
    "fit_and_measure",
    "measure_on_corpus",
    "tokenize",
]

_HOMES = {
    "Estimate": "estimate",
    "TokenizeConfig": "config",
    "TokenizeResult": "job",
    "fit_and_measure": "fit",
    "measure_on_corpus": "fit",
    "tokenize": "job",
}


def __getattr__(name: str) -> object:
    if name == "estimate":  # its module has the same name, and would be found from now on
        globals()[name] = import_module("seit.tokenize.estimate").estimate
        return globals()[name]
    if name not in _HOMES:
        raise AttributeError(f"module 'seit.tokenize' has no attribute {name!r}")
    return getattr(import_module(f"seit.tokenize.{_HOMES[name]}"), name)
