"""Verbs of `seit`: each does what the command of its name does and returns what that prints."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
