"""Self-supervised pretraining, on the shared training loop: masked tokens, SiT, distillation."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
