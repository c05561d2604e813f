"""Load batches of a store: orders, resident and streaming loaders, pixel source."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
