"""Learning without labels, on the one training loop: masked tokens, SiT, self-distillation."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
