"""Pruning: zeros in weights, or fewer heads, units, dimensions and blocks, with fine-tuning."""
