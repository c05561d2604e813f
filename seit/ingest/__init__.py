"""Offline tokenization: sources → tokenizer → shards.

Imports are lazy, so that processes that only decode do not load a tokenizer.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
