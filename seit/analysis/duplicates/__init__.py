"""Near-duplicates: pairs of samples with similar tokens, within and between splits."""
