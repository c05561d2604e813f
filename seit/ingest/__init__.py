"""The offline job: sources → tokenizer → shards.

Names are imported when first used: processes that only decode need no tokenizer.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
