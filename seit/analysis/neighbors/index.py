"""Exact nearest neighbors by cosine, block by block.

Legend: n samples of the file, M queries, D feature dim, k neighbors, b rows of a block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from seit.errors import DamagedError, UsageError
from seit.shards import split_key
from seit.training import FeatureFile, open_features

QUERY_ROWS = 1024
"""Queries compared with a block at a time."""
_BLOCK_ROWS = 8192


@dataclass(frozen=True)
class Nearest:
    """Nearest neighbors of M queries, the nearest first.

    Attributes:
        rows: int64 (M, k), rows of the file; −1 where it has fewer samples to choose from.
        similarities: float32 (M, k), cosines, −1 to 1; −inf where there is no neighbor.
    """

    rows: npt.NDArray[np.int64]
    similarities: npt.NDArray[np.float32]


class NeighborIndex:
    """Exact search in a file of features, which is read block by block.

    A search reads the whole file, and holds one block of it, the queries, and their neighbors. A
    feature of length 0 has similarity 0 to all.

    Args:
        features: an open file, or the path of one that `seit embed` wrote.
        device: device of the products.

    Raises:
        UsageError: there is no such file.
        DamagedError: the file is corrupt.

    Example:
        >>> index = NeighborIndex("features.safetensors")
        >>> index.search(index.vectors([0]), k=5).rows
    """

    def __init__(self, features: FeatureFile | str | Path, *, device: str = "cpu") -> None:
        self.features: FeatureFile = (
            open_features(features) if isinstance(features, str | Path) else features
        )
        self._device = torch.device(device)
        self._clips: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.features)

    def rows_of(self, keys: Sequence[str]) -> list[int]:
        """Return the row of each key.

        Raises:
            UsageError: there is none.
        """
        wanted = set(keys)
        found = {key: row for row, key in enumerate(self.features.keys) if key in wanted}
        for key in keys:
            if key not in found:
                raise UsageError(
                    f"there is no sample {key!r} in {self.features.path}, whose keys look like "
                    f"{next(iter(self.features.keys), '')!r}"
                )
        return [found[key] for key in keys]

    def vectors(self, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the features of some rows: float32 (M, D)."""
        parts = [self.features.read(row, row + 1) for row in rows]
        return np.concatenate([np.empty((0, self.features.dim), np.float32), *parts])

    def search(
        self,
        queries: npt.NDArray[np.float32],
        *,
        k: int = 10,
        rows: npt.NDArray[np.int64] | None = None,
    ) -> Nearest:
        """Find the nearest neighbors of ``queries`` (M, D).

        Args:
            queries: features.
            k: number of neighbors, at least 1.
            rows: int64 (M,), the queries' own rows in this file, which are no neighbors of theirs,
                nor are other windows of the same clip (keys that differ in a number after #).

        Raises:
            UsageError: queries have another dim.
            DamagedError: a feature is not finite.
        """
        self._check(queries, k)
        own = None if rows is None else torch.from_numpy(self.clips[rows]).to(self._device)
        x_MD = self._unit(queries, where="a query")
        k = min(k, len(self))
        best = torch.full((len(x_MD), k), -torch.inf, device=self._device)
        found = torch.full((len(x_MD), k), -1, dtype=torch.int64, device=self._device)
        for start, block_bD in self._blocks():
            numbers = torch.arange(start, start + len(block_bD), device=self._device)
            clips = None if own is None else self._block_clips(start, len(block_bD))
            for first in range(0, len(x_MD), QUERY_ROWS):
                part = slice(first, first + QUERY_ROWS)
                similar = x_MD[part] @ block_bD.T
                if own is not None and clips is not None:
                    similar.masked_fill_(own[part, None] == clips, -torch.inf)
                near = similar.topk(min(k, len(numbers)), dim=1)
                values = torch.cat([best[part], near.values], dim=1)
                places = torch.cat([found[part], numbers[near.indices]], dim=1)
                kept = values.topk(k, dim=1)
                best[part] = kept.values
                found[part] = places.gather(1, kept.indices)
        found[best == -torch.inf] = -1
        return Nearest(found.cpu().numpy(), best.cpu().numpy())

    @property
    def clips(self) -> npt.NDArray[np.int64]:
        """Number of the file that each row is a window of: int64 (n,)."""
        if self._clips is None:
            numbers: dict[str, int] = {}
            files = (split_key(key, None)[0] for key in self.features.keys)
            self._clips = np.fromiter(
                (numbers.setdefault(file, len(numbers)) for file in files), np.int64, len(self)
            )
        return self._clips

    def _block_clips(self, start: int, size: int) -> Tensor:
        return torch.from_numpy(self.clips[start : start + size]).to(self._device)

    def _blocks(self) -> Iterator[tuple[int, Tensor]]:
        rows = min(_BLOCK_ROWS, self.features.block_rows)
        for start in range(0, len(self), rows):
            block = self.features.read(start, min(start + rows, len(self)))
            yield start, self._unit(block, where=f"row {start:,} or one after it")

    def _unit(self, values: npt.NDArray[np.float32], *, where: str) -> Tensor:
        x = torch.from_numpy(np.array(values, np.float32)).to(self._device)
        if not x.isfinite().all():
            raise DamagedError(
                f"{self.features.path}: {where} is not finite; write the file again with `seit "
                "embed`"
            )
        return F.normalize(x, dim=1)

    def _check(self, queries: npt.NDArray[np.float32], k: int) -> None:
        if k < 1:
            raise UsageError(f"k is {k}; expected at least 1")
        if queries.ndim != 2 or queries.shape[1] != self.features.dim:
            raise UsageError(
                f"the queries are {queries.shape}, and {self.features.path} holds features of "
                f"{self.features.dim} dimensions; embed both with one run and layer"
            )
