"""Exact nearest neighbors among the features of a file, and the classes they predict."""
