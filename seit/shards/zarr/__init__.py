"""The Zarr v3 container: a split is a group `SPLIT.zarr/` that any Zarr library opens.

Its arrays `tokens` (N, H, W), `labels` (N,), `keys` (N,) and, if samples have any, `metadata` (N,)
are chunked along the samples only: a chunk is a block, and a shard of the store consists of the
shards with the same number of all arrays. Files are written and read here without a Zarr library;
:mod:`seit.shards.zarr_codec` lets Zarr libraries decode `tokens`.
"""

from seit.shards.zarr.division import SHARD_SAMPLES, Chunking, ZarrGroup
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
