"""Continual learning on a store: tasks that arrive one after the other.

Streams say which samples come when, learners what is learned of them, a memory what may be kept,
in bytes. Results carry every definition of accuracy and forgetting under its own name.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
