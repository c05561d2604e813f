"""Store → batches on the device: orders, resident and streaming loaders, pixel source."""

from seit.stream.batches import Batch, Loader, Rank, RowBatch
from seit.stream.datasets import StreamDataset, TokenDataset
from seit.stream.loaders import loader
from seit.stream.mixing import MixedLoader
from seit.stream.order import GlobalOrder, Order, StoredOrder, WindowOrder, sample_at
from seit.stream.pixels import PixelLoader
from seit.stream.resident import ResidentLoader
from seit.stream.streaming import StreamingLoader
from seit.stream.subsets import select
from seit.stream.unpack import unpack

__all__ = [
    "Batch",
    "GlobalOrder",
    "Loader",
    "MixedLoader",
    "Order",
    "PixelLoader",
    "Rank",
    "ResidentLoader",
    "RowBatch",
    "StoredOrder",
    "StreamDataset",
    "StreamingLoader",
    "TokenDataset",
    "WindowOrder",
    "loader",
    "sample_at",
    "select",
    "unpack",
]
