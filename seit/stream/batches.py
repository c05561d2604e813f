"""Batches, ranks, and the base of all loaders.

Legend: B batch, b a rank's part of it, H W token grid or image, n samples, N samples of a split,
S bytes per packed sample.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from operator import index
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.errors import UsageError
from seit.shards import LabelSets, Split, Store
from seit.stream.order import GlobalOrder, Order, StoredOrder

STATE_VERSION = 1
_SHOWN = 8
"""Labels that a notebook shows of a batch."""


@dataclass(frozen=True, repr=False)
class Batch:
    """A batch on the loader's device; with several ranks, one rank's part of it.

    Attributes:
        tokens: ids (b, H, W), int16 (int32 if K > 32,768); uint8 (b, 3, H, W) from a pixel source.
        labels: int64 (b,), −1 for an unlabeled sample; float32 (b, K), 0 or 1 (−1 throughout for
            an unlabeled sample), in a split of several labels per sample.
        positions: int64 (b,), each sample's global position in the epoch's order.
        epoch: the epoch that the batch belongs to.
        indices: int64 (b,) on the host, the samples' rows in the split.
        find_keys: looks up the samples' keys.
    """

    tokens: Tensor
    labels: Tensor
    positions: Tensor
    epoch: int
    indices: npt.NDArray[np.int64]
    find_keys: Callable[[], list[str]]

    @property
    def keys(self) -> list[str]:
        """Keys of the samples, looked up on access."""
        return self.find_keys()

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.tokens.shape))
        return (
            f"<batch of epoch {self.epoch}: tokens {self._dtype} {shape} on {self.tokens.device}>"
        )

    def _repr_html_(self) -> str:
        from seit.report import summary_table

        shape = "×".join(map(str, self.tokens.shape))
        rows = [
            ("tokens", f"{self._dtype}, {shape}"),
            ("labels", self.labels[:_SHOWN].tolist()),
            ("device", self.tokens.device),
            ("epoch", self.epoch),
        ]
        return summary_table(f"batch of {len(self):,} samples", rows)

    @property
    def _dtype(self) -> str:
        return str(self.tokens.dtype).removeprefix("torch.")


@dataclass(frozen=True)
class RowBatch:
    """A batch as rows of a resident split, for use without unpacking its ids.

    Attributes:
        packed: uint8 (N, S), all samples of the split, on the loader's device.
        rows: int64 (b,), rows of the batch, on the device.
        labels: int64 (b,), −1 for an unlabeled sample, or float32 (b, K); see :class:`Batch`.
        positions: int64 (b,), each sample's global position in the epoch's order.
        epoch: the epoch that the batch belongs to.
    """

    packed: Tensor
    rows: Tensor
    labels: Tensor
    positions: Tensor
    epoch: int


class Samples(NamedTuple):
    """Some samples of a split; see :class:`Batch` for the fields."""

    tokens: Tensor
    labels: Tensor
    indices: npt.NDArray[np.int64]
    find_keys: Callable[[], list[str]]


@dataclass(frozen=True)
class Rank:
    """A process's part of every global batch.

    In a shuffled batch of B samples, rank r of R gets the r-th of R equal parts of the first half,
    and its mirror image in the second: samples i and B − 1 − i are always on one rank, at mirrored
    positions of its part. So an augmentation that pairs samples with the mirrored batch gives the
    same result with any number of ranks.
    """

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise UsageError(
                f"rank {self.rank} of {self.world_size} is invalid; use 0 to world_size - 1"
            )

    def check_batch_size(self, batch_size: int) -> None:
        """Check that a global batch can be split into mirrored parts.

        Raises:
            UsageError: several ranks, and a batch that is not a multiple of twice their number.
        """
        if self.world_size > 1 and batch_size % (2 * self.world_size):
            raise UsageError(
                f"batch_size {batch_size} must be a multiple of 2 × {self.world_size} ranks; "
                f"use a multiple of {2 * self.world_size}"
            )

    def part_of_batch(self, batch_size: int) -> npt.NDArray[np.int64]:
        """Return the places of the rank's samples in a global batch: int64 (b,)."""
        if self.world_size == 1:
            return np.arange(batch_size)
        size = batch_size // (2 * self.world_size)
        first = np.arange(self.rank * size, (self.rank + 1) * size)
        return np.concatenate([first, batch_size - 1 - first[::-1]])

    def part_of_split(self, num_samples: int) -> range:
        """Return the positions that the rank evaluates; each sample belongs to one rank."""
        bounds = (self.rank * num_samples, (self.rank + 1) * num_samples)
        return range(bounds[0] // self.world_size, bounds[1] // self.world_size)


class Loader(ABC):
    """Batches of one split, in an order that depends on (seed, epoch) alone.

    Shuffled epochs drop the last incomplete batch and give the same global sequence of batches for
    any number of ranks. In stored order every sample comes once, on one rank. Each iteration yields
    the next epoch; :meth:`steps` yields batches without end.

    Attributes:
        classes: names that labels index; empty if samples are unlabeled.
        label_sets: several labels per sample, for all rows of the split; None for single labels.
        store: the store whose tokens these are; None for pixels and sounds.
        sample_shape: shape of a sample: (H, W) of tokens, (3, S, S) of pixels; None if it varies.

    Args:
        order: order of the samples.
        batch_size: size of the global batch, over all ranks.
        device: device of the batches.
        rank: the process's part of each batch.

    Raises:
        UsageError: the split is empty or smaller than one shuffled batch, or the batch cannot be
            split over the ranks.
    """

    classes: tuple[str, ...] = ()
    label_sets: LabelSets | None = None
    store: Store | None = None
    sample_shape: tuple[int, ...] | None = None

    def __init__(
        self,
        order: Order,
        *,
        batch_size: int,
        device: str | torch.device,
        rank: Rank | None = None,
    ) -> None:
        self.order = order
        self.batch_size = index(batch_size)
        self.rank = rank or Rank()
        self.device = torch.device(device)
        self.shuffle = order.shuffles
        self.next_epoch = 0
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}; expected at least 1")
        if not order.num_samples:
            raise UsageError("the split is empty; choose another")
        if self.shuffle:
            self.rank.check_batch_size(batch_size)
            self._part = self.rank.part_of_batch(batch_size)
            if batch_size > order.num_samples:
                raise UsageError(
                    f"a batch of {batch_size} is larger than the {order.num_samples} samples of "
                    f"the split; pass --batch-size {order.num_samples} or less"
                )

    @property
    def num_samples(self) -> int:
        """Samples per epoch, over all ranks, including an incomplete batch."""
        return self.order.num_samples

    def __len__(self) -> int:
        """Return the batches per epoch."""
        if self.shuffle:
            return self.num_samples // self.batch_size
        return -(-len(self.rank.part_of_split(self.num_samples)) // self._stored_batch)

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.next_epoch
        self.next_epoch += 1
        return self.epoch(epoch)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch, from batch ``start``."""
        for number in range(start, len(self)):
            yield self._batch(epoch, number)

    def steps(self, start: int = 0) -> Iterator[Batch]:
        """Yield batches from step ``start``, epoch after epoch, without end."""
        for step in count(start):
            epoch, number = divmod(step, len(self))
            yield self._batch(epoch, number)

    def state(self, step: int) -> dict[str, Any]:
        """Return JSON to resume after ``step`` steps, also with other ranks."""
        return {"version": STATE_VERSION, "step": index(step), **self._identity()}

    def resume(self, state: Mapping[str, Any]) -> int:
        """Return the step to pass to :meth:`steps`, from the state of an earlier loader.

        Raises:
            UsageError: that loader had another order, seed, batch or split.
        """
        expected = {"version": STATE_VERSION, **self._identity()}
        for name, value in expected.items():
            if state.get(name) != value:
                raise UsageError(
                    f"the state is of a loader with {name} {state.get(name)!r}, not {value!r}; "
                    "create the loader with the same arguments"
                )
        step = state.get("step")
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise UsageError(f"the state's step is {step!r}; it counts from 0")
        return step

    def close(self) -> None:  # noqa: B027 — most loaders do not read ahead
        """Stop reading ahead; the loader can be used again."""

    @abstractmethod
    def load(self, positions: npt.NDArray[np.int64], epoch: int) -> Samples:
        """Load the samples at ``positions`` (b,) of an epoch, on the device."""

    def _identity(self) -> dict[str, Any]:
        return {
            "order": self.order.name,
            "batch_size": self.batch_size,
            "num_samples": self.num_samples,
            **self.order.settings,
        }

    @property
    def _stored_batch(self) -> int:
        return -(-self.batch_size // self.rank.world_size)

    def _positions(self, number: int) -> npt.NDArray[np.int64]:
        """Return the positions (b,) of an epoch in the rank's part of a batch."""
        if self.shuffle:
            return number * self.batch_size + self._part
        part = self.rank.part_of_split(self.num_samples)
        start = number * self._stored_batch
        return np.array(part[start : start + self._stored_batch], dtype=np.int64)

    def _batch(self, epoch: int, number: int) -> Batch:
        positions = self._positions(number)
        samples = self.load(positions, epoch)
        return Batch(
            tokens=samples.tokens,
            labels=self._labels_of(samples),
            positions=torch.from_numpy(positions).to(self.device, non_blocking=True),
            epoch=epoch,
            indices=samples.indices,
            find_keys=samples.find_keys,
        )

    def _labels_of(self, samples: Samples) -> Tensor:
        """Return the labels of samples (b,), or (b, K) of several per sample, on the device."""
        if self.label_sets is None:
            return samples.labels
        return self._targets(self.label_sets, samples.indices)

    def _targets(self, sets: LabelSets, indices: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(sets.rows(indices)).to(self.device, non_blocking=True)


def check_labeled(labels: npt.NDArray[np.integer], split: Split) -> None:
    """Check that all samples of a split have a label.

    In a split of several labels per sample these count.

    Raises:
        UsageError: any of ``labels`` is −1.
    """
    sets = split.label_sets
    if not sets.known.all() if sets is not None else labels.min(initial=0) < 0:
        raise UsageError(
            f"split {split.name!r} of {split.store.folder} has samples without a label; "
            "tokenize a class-per-folder tree or a manifest with labels to train a classifier"
        )


class IndexedLoader(Loader):
    """A loader with random access to samples, with all labels in memory.

    Args:
        labels: int64 (n,).
        find_keys: looks up the keys of rows (b,).
        batch_size: size of the global batch.
        shuffle: True for a new permutation in each epoch.
        seed: seed of the permutations.
        device: device of the batches.
        order: replaces the order `global`, or the stored one.
        rank: the process's part of each batch.
    """

    def __init__(
        self,
        *,
        labels: npt.NDArray[np.int64],
        find_keys: Callable[[npt.NDArray[np.int64]], list[str]],
        batch_size: int,
        shuffle: bool,
        seed: int,
        device: str | torch.device,
        order: Order | None = None,
        rank: Rank | None = None,
    ) -> None:
        if order is None:
            count = len(labels)
            order = GlobalOrder(count, seed=seed) if shuffle else StoredOrder(count)
        super().__init__(order, batch_size=batch_size, device=device, rank=rank)
        self._find_keys = find_keys
        self._labels = torch.from_numpy(labels).to(self.device)

    @abstractmethod
    def read(self, indices: npt.NDArray[np.int64]) -> Tensor:
        """Load the tokens (or pixels) of the rows ``indices`` (b,), on the device."""

    def load(self, positions: npt.NDArray[np.int64], epoch: int) -> Samples:
        """Load the samples at ``positions`` (b,) of an epoch, on the device."""
        indices = self.order.indices(positions, epoch)
        rows = torch.from_numpy(indices).to(self.device, non_blocking=True)
        return Samples(
            tokens=self.read(indices),
            labels=self._labels.index_select(0, rows),
            indices=indices,
            find_keys=lambda: self._find_keys(indices),
        )
