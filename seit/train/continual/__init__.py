"""Continual learning on tokens: streams of tasks, learners, a memory counted in bytes, measures."""
