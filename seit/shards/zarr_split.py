"""The former place of :func:`seit.shards.zarr.write_zarr_split`."""

from seit.shards.zarr import write_zarr_split

__all__ = ["write_zarr_split"]
