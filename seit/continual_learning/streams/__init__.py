"""Streams: the tasks that a learner sees, as rows of a split."""
