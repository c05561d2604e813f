"""Batches mixed from several loaders in fixed shares.

Legend: B batch, b a rank's part of it.
"""

import math
from collections.abc import Collection, Sequence
from itertools import chain
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from seit.classes import unite_classes
from seit.errors import UsageError
from seit.shards import check_same_tokenizer
from seit.stream.batches import Loader, Samples
from seit.stream.order import Order, sample_at

_MIX_STREAM = 0x6D6978


class MixedLoader(Loader):
    """A loader that mixes the samples of several loaders in proportion to weights.

    In any sequence of batches every loader has its share to within one sample. Each loader goes
    through its own epochs in its own order, whatever their length; the places of its samples in the
    batch are random. Everything is a function of the seeds and the step, for any number of ranks.
    Classes are matched by name, in the order of their first appearance; labels index ``classes``.

    Args:
        parts: shuffled loaders on one device, of tokens of one tokenizer, or of pixels of one size;
            only their order is used, not their batch size or rank.
        weights: above 0, one per loader; they need not add up to 1.
        batch_size: size of the global batch; each loader must get at least one sample of it.
        seed: seed of the places in the batch.
        steps_per_epoch: batches per epoch; by default as many as would use the samples of all
            parts once if the weights were proportional to their sizes.

    Raises:
        UsageError: the weights or loaders do not match, their tokenizers or the shapes of their
            samples differ, or their classes differ and two of one loader have the same name.
    """

    def __init__(
        self,
        parts: Sequence[Loader],
        weights: Sequence[float],
        *,
        batch_size: int,
        seed: int = 0,
        steps_per_epoch: int | None = None,
    ) -> None:
        if len(parts) != len(weights) or not parts:
            raise UsageError(f"{len(weights)} weights for {len(parts)} loaders; pass one for each")
        if not all(weight > 0 and math.isfinite(weight) for weight in weights):
            raise UsageError(f"the weights are {list(weights)}; they must be above 0 and finite")
        if any(part.label_sets is not None for part in parts):
            raise UsageError(
                "a loader of several labels per sample cannot be mixed; merge the stores instead"
            )
        shares = np.cumsum(weights) / np.sum(weights)
        least = min(weights) / math.fsum(weights) * batch_size
        if least < 1:
            raise UsageError(
                f"a batch of {batch_size} has {least:.2g} samples of the lightest loader; make "
                "the batch larger"
            )
        if not all(part.order.shuffles for part in parts):
            raise UsageError("a loader in stored order cannot be mixed; pass shuffled loaders")
        if stores := [part.store for part in parts if part.store is not None]:
            check_same_tokenizer(stores)
        _check_shapes({part.sample_shape or () for part in parts})
        if steps_per_epoch is None:
            steps_per_epoch = max(1, sum(part.num_samples for part in parts) // batch_size)
        order = _MixOrder(steps_per_epoch * batch_size, seed, shares, parts)
        super().__init__(order, batch_size=batch_size, device=parts[0].device, rank=parts[0].rank)
        self._parts = tuple(parts)
        self.store, self.sample_shape = parts[0].store, parts[0].sample_shape
        self.classes, numbers = unite_classes([part.classes for part in parts])
        self._renumber = len({part.classes for part in parts}) > 1
        self._numbers = [
            torch.from_numpy(np.append(one, np.int32(-1))).to(self.device, torch.int64)
            for one in numbers
        ]
        self._shares = np.concatenate([[0.0], shares[:-1], [1.0]])
        self._seed = index(seed)

    def load(self, positions: npt.NDArray[np.int64], epoch: int) -> Samples:
        """Load the samples at ``positions`` (b,) of an epoch, on the device."""
        steps = positions // self.batch_size + epoch * len(self)
        step = int(steps[0])
        assert (steps == step).all(), "positions of one batch"
        sources, numbers = self._plan(step)
        places = positions % self.batch_size
        sources, numbers = sources[places], numbers[places]
        found = [
            (np.flatnonzero(sources == source), self._load_part(part, numbers[sources == source]))
            for source, part in enumerate(self._parts)
        ]
        back = np.argsort(np.concatenate([slots for slots, _ in found]), kind="stable")
        rows = torch.from_numpy(back).to(self.device)
        samples = [part for _, parts in found for part in parts]
        _check_shapes({tuple(part.tokens.shape[1:]) for part in samples})
        labels = [
            numbers_of[part.labels] if self._renumber else part.labels
            for (_, parts), numbers_of in zip(found, self._numbers, strict=True)
            for part in parts
        ]
        return Samples(
            tokens=torch.cat([part.tokens for part in samples])[rows],
            labels=torch.cat(labels)[rows],
            indices=np.concatenate([part.indices for part in samples])[back],
            find_keys=lambda: _keys(samples, back),
        )

    def close(self) -> None:
        """Stop reading ahead in all parts."""
        for part in self._parts:
            part.close()

    def _plan(self, step: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the loader of each place of a global batch, and the sample's number in it."""
        bounds = np.floor(np.array([step, step + 1])[:, None] * self.batch_size * self._shares)
        counts = np.diff(bounds.astype(np.int64), axis=1)
        sources = np.repeat(np.arange(len(self._parts)), counts[1] - counts[0])
        numbers = np.concatenate(
            [np.arange(first, last) for first, last in zip(counts[0], counts[1], strict=True)]
        )
        mixed = sample_at(
            np.arange(self.batch_size), self.batch_size, seed=self._seed ^ _MIX_STREAM, epoch=step
        )
        return sources[mixed], numbers[mixed]

    def _load_part(self, part: Loader, numbers: npt.NDArray[np.int64]) -> list[Samples]:
        """Load samples of one loader by their numbers over all of its epochs."""
        samples, undo = [], []
        for epoch in np.unique(numbers // part.num_samples).tolist():
            chosen = np.flatnonzero(numbers // part.num_samples == epoch)
            samples.append(part.load(numbers[chosen] % part.num_samples, epoch))
            undo.append(chosen)
        if len(samples) < 2:
            return samples
        back = np.argsort(np.concatenate(undo), kind="stable")
        rows = torch.from_numpy(back).to(self.device)
        joined = list(samples)
        return [
            Samples(
                tokens=torch.cat([entry.tokens for entry in joined])[rows],
                labels=torch.cat([entry.labels for entry in joined])[rows],
                indices=np.concatenate([entry.indices for entry in joined])[back],
                find_keys=lambda: _keys(joined, back),
            )
        ]


class _MixOrder(Order):
    """Order that only describes the mixture: the loader finds the samples."""

    name = "mixed"

    def __init__(
        self,
        num_samples: int,
        seed: int,
        shares: npt.NDArray[np.float64],
        parts: Sequence[Loader],
    ) -> None:
        self.num_samples = num_samples
        self._settings = {
            "seed": index(seed),
            "shares": [round(float(share), 12) for share in shares],
            "parts": [
                {
                    "order": part.order.name,
                    "num_samples": part.num_samples,
                    **part.order.settings,
                }
                for part in parts
            ],
        }

    @property
    def settings(self) -> dict[str, Any]:
        """Return the seed, the cumulative shares, and the orders of the parts."""
        return self._settings

    def indices(self, positions: npt.NDArray[np.integer], epoch: int) -> npt.NDArray[np.int64]:
        """Return the numbers of the mixture's samples: the positions themselves."""
        return positions.astype(np.int64) + epoch * self.num_samples


def _check_shapes(shapes: Collection[tuple[int, ...]]) -> None:
    if len(shapes) > 1:
        found = " and ".join("×".join(map(str, one)) or "any" for one in sorted(shapes))
        raise UsageError(
            f"the loaders yield samples of the shapes {found}; pass loaders of one shape, all of "
            "tokens or all of pixels"
        )


def _keys(samples: Sequence[Samples], rows: npt.NDArray[np.int64]) -> list[str]:
    keys = list(chain.from_iterable(part.find_keys() for part in samples))
    return [keys[row] for row in rows.tolist()]
