"""Subjects of analysis: networks whose layers are read, clip by clip."""
