"""The offline job: sources → tokenizer → shards."""

from seit.tokenize.estimate import Estimate, estimate
from seit.tokenize.job import TokenizeConfig, TokenizeResult, tokenize

__all__ = ["Estimate", "TokenizeConfig", "TokenizeResult", "estimate", "tokenize"]
