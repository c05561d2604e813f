"""Crops of a corpus' images, as a function of (seed, step).

Shape letters: B crops, S crop side, N patches.
"""

import os
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.errors import SeitError, UnreadableError
from seit.shards.ahead import map_ahead
from seit.tokenize.decode import decode_image
from seit.tokenize.sources import Instance, read_bytes
from seit.train.tokenizers.config import TokenizerConfig

_ATTEMPTS = 16


class Crops:
    """Batches of crops uint8 (B, S, S, 3), mirrored half of the time.

    A step's images, scales and places depend on (seed, step) alone. An image that cannot be read
    is replaced by another one.
    """

    def __init__(self, instances: Sequence[Instance], config: TokenizerConfig) -> None:
        self._instances = instances
        self._config = config

    def batches(self, step: int, stop: int) -> Iterator[Tensor]:
        """The batches of the steps from ``step`` to before ``stop``, made ahead by threads."""
        workers = max(1, (os.cpu_count() or 1) // 2)
        return map_ahead(self.batch, range(step, stop), most=workers)

    def batch(self, step: int) -> Tensor:
        """The batch of one step."""
        config = self._config
        random = np.random.default_rng([config.seed, step])
        crops = [
            crop
            for _ in range(config.batch_size // config.crops_per_image)
            for crop in self._crops(random)
        ]
        return torch.from_numpy(np.stack(crops))

    def _crops(self, random: np.random.Generator) -> Iterator[npt.NDArray[np.uint8]]:
        config = self._config
        low, high = np.log(config.scale)
        size = round(config.size * float(np.exp(random.uniform(low, high))))
        pixels = self._image(random, size)
        for _ in range(config.crops_per_image):
            top, left = random.integers(0, size - config.crop + 1, 2)
            crop = pixels[top : top + config.crop, left : left + config.crop]
            yield crop[:, ::-1] if random.random() < 0.5 else crop

    def _image(self, random: np.random.Generator, size: int) -> npt.NDArray[np.uint8]:
        reason = ""
        for _ in range(_ATTEMPTS):
            instance = self._instances[int(random.integers(len(self._instances)))]
            try:
                return decode_image(read_bytes(instance), size=size)
            except UnreadableError as error:
                reason = f"{instance.key}: {error}"
        raise SeitError(f"{_ATTEMPTS} images in a row cannot be read ({reason}); check SRC")
