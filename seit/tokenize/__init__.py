"""The offline job: sources → tokenizer → shards."""

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
