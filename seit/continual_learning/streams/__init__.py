"""Streams: the tasks that a learner meets, as rows of a split."""
