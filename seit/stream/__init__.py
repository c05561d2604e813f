"""Store → batches on the device: order, resident loader, pixel source."""

from seit.stream.batches import Batch, Loader
from seit.stream.order import sample_at
from seit.stream.pixels import PixelLoader
from seit.stream.resident import ResidentLoader, loader
from seit.stream.unpack import unpack

__all__ = ["Batch", "Loader", "PixelLoader", "ResidentLoader", "loader", "sample_at", "unpack"]
