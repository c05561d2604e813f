"""Batched token and pixel augmentation on the batch's device, independent of batch splits.

Every random draw is a function of (seed, epoch, global position of the sample) alone.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
