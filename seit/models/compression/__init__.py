"""Compressed networks: how their weights are stored, and how they are rebuilt from that."""
