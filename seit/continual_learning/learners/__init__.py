"""Learners: one file a family of methods, and the registry of their names."""
