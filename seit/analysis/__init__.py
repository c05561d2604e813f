"""Analysis of stores and runs, and the comparison of tokens with pixels."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
