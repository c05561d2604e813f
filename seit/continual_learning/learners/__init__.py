"""Learners, one file per family of methods, and the registry of their names."""
