"""The `context` codec: a tree of integer logistic regressions and a rANS coder (Duda 2013).

A token is coded as a path through a binary tree over the codes. The probability of each turn is
looked up from the token's left, upper and upper-right neighbor; five turns are one symbol of a
range asymmetric numeral system. Integer arithmetic makes decoders agree on every machine.
"""

from seit.shards.context.codec import ContextCodec
from seit.shards.context.tables import MAX_CODES, ContextTables

__all__ = ["MAX_CODES", "ContextCodec", "ContextTables"]
