"""Runs: find them below a folder, and compare their settings and results."""
