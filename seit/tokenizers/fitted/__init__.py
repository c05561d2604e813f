"""Fitted tokenizers: statistics of a corpus, computed in seconds and without a network."""
