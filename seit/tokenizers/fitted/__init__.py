"""Fitted tokenizers: statistics of a corpus, computed in seconds without a network."""
