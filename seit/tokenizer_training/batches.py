"""Batches of crops of a corpus, as a function of (seed, step).

Legend: B crops.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from seit.errors import SeitError, UnreadableError
from seit.ingest import Instance
from seit.lookahead import map_ahead
from seit.tokenizer_training.config import TokenizerConfig
from seit.tokenizers import to_planes

_ATTEMPTS = 16
_Read = TypeVar("_Read")


class Batch(NamedTuple):
    """Crops of a step."""

    values: Tensor
    """Uint8 (B, S, S, 3) of images, or float32 (B, 1, M, crop) of spectrograms, about −1…1."""
    labels: Tensor
    """Labels int64 (B,), −1 for an instance without a class."""
    keys: list[str]
    """Keys of the instances."""

    def planes(self, device: torch.device) -> Tensor:
        """Return float32 planes (B, P, Y, X), about −1…1, on ``device``."""
        values = self.values.to(device)
        return to_planes(values) if values.dtype == torch.uint8 else values


class Batches(ABC):
    """Batches that depend on (seed, step) alone.

    An unreadable instance is replaced by another one.
    """

    noun: ClassVar[str]

    def __init__(self, instances: Sequence[Instance], config: TokenizerConfig) -> None:
        self._instances = instances
        self._config = config

    def batches(self, step: int, stop: int) -> Iterator[Batch]:
        """Yield the batches of steps ``step`` to ``stop`` − 1, prefetched by threads."""
        workers = max(1, (os.cpu_count() or 1) // 2)
        return map_ahead(self.batch, range(step, stop), most=workers)

    def batch(self, step: int) -> Batch:
        """Return the batch of a step."""
        config = self._config
        random = np.random.default_rng([config.seed, step])
        crops: list[Tensor] = []
        sources: list[Instance] = []
        for _ in range(config.batch_size // config.crops_per_image):
            instance, parts = self._crops(random)
            crops += parts
            sources += [instance] * len(parts)
        labels = torch.tensor([one.label for one in sources])
        return Batch(torch.stack(crops), labels, [one.key for one in sources])

    @abstractmethod
    def _crops(self, random: np.random.Generator) -> tuple[Instance, list[Tensor]]:
        """Return the crops of a random instance."""

    def _draw(
        self, random: np.random.Generator, read: Callable[[int], _Read]
    ) -> tuple[Instance, _Read]:
        """Draw and read a random instance, given a reader by its number."""
        reason = ""
        for _ in range(_ATTEMPTS):
            number = int(random.integers(len(self._instances)))
            instance = self._instances[number]
            try:
                return instance, read(number)
            except UnreadableError as error:
                reason = f"{instance.key}: {error}"
        raise SeitError(f"{_ATTEMPTS} {self.noun} in a row cannot be read ({reason}); check SRC")
