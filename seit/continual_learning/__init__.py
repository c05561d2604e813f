"""Continual learning on a store of tokens.

A stream defines which samples arrive when, a learner how they are learned, and a memory which of
them are kept within a budget of bytes. Results report each definition of accuracy and forgetting
under its own name.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
