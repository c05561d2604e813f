"""Comparison of methods of compression on one run."""
