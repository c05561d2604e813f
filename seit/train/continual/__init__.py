"""Continual learning on a store: tasks that arrive one after the other.

Streams say which samples come when, learners what is learned of them, a memory what may be kept,
in bytes. Results carry every definition of accuracy and forgetting under its own name.
"""

from seit.train.continual.config import ContinualConfig
from seit.train.continual.continual import continual
from seit.train.continual.result import ContinualResult

__all__ = ["ContinualConfig", "ContinualResult", "continual"]
