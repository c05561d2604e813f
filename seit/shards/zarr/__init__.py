"""The Zarr v3 container: a split is a group `SPLIT.zarr/` that any Zarr library opens.

Its arrays `tokens` (N, H, W), `labels` (N,), `keys` (N,) and, where samples carry any, `metadata`
(N,) are cut along the samples alone: a chunk is a block, and a shard of the store is the shard with
one number of each array. Files are written and read here without a Zarr library;
:mod:`seit.shards.zarr_codec` is what a Zarr library needs to decode `tokens`.
"""

from seit.shards.zarr.chunking import SHARD_SAMPLES, Chunking, ZarrGroup
from seit.shards.zarr.documents import check_zarr_group
from seit.shards.zarr.shard import ZarrShard, open_zarr_shards
from seit.shards.zarr.writer import ZarrSplit, write_zarr_split

__all__ = [
    "SHARD_SAMPLES",
    "Chunking",
    "ZarrGroup",
    "ZarrShard",
    "ZarrSplit",
    "check_zarr_group",
    "open_zarr_shards",
    "write_zarr_split",
]
