"""Crops of a corpus' images, as a function of (seed, step).

Shape letters: B crops, S crop side.
"""

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.errors import SeitError, UnreadableError
from seit.ingest import Instance, decode_image, read_bytes
from seit.lookahead import map_ahead
from seit.tokenizer_training.config import TokenizerConfig
from seit.tokenizers import to_planes

_ATTEMPTS = 16


class CropBatch(NamedTuple):
    """What one step sees."""

    images: Tensor
    """uint8 (B, S, S, 3)."""
    labels: Tensor
    """int64 (B,), −1 where the image has no class."""

    def planes(self, device: torch.device) -> Tensor:
        """float32 (B, 3, S, S), −1…1, on ``device``."""
        return to_planes(self.images.to(device))


class Crops:
    """Batches of crops, mirrored half of the time.

    A step's images, scales and places depend on (seed, step) alone. An image that cannot be read
    is replaced by another one.
    """

    def __init__(self, instances: Sequence[Instance], config: TokenizerConfig) -> None:
        self._instances = instances
        self._config = config

    def batches(self, step: int, stop: int) -> Iterator[CropBatch]:
        """The batches of the steps from ``step`` to before ``stop``, made ahead by threads."""
        workers = max(1, (os.cpu_count() or 1) // 2)
        return map_ahead(self.batch, range(step, stop), most=workers)

    def batch(self, step: int) -> CropBatch:
        """The batch of one step."""
        config = self._config
        random = np.random.default_rng([config.seed, step])
        crops: list[npt.NDArray[np.uint8]] = []
        labels: list[int] = []
        for _ in range(config.batch_size // config.crops_per_image):
            label, parts = self._crops(random)
            crops += parts
            labels += [label] * len(parts)
        return CropBatch(torch.from_numpy(np.stack(crops)), torch.tensor(labels))

    def _crops(self, random: np.random.Generator) -> tuple[int, list[npt.NDArray[np.uint8]]]:
        """The label and the crops of one image."""
        config = self._config
        low, high = np.log(config.scale)
        size = round(config.size * float(np.exp(random.uniform(low, high))))
        label, pixels = self._image(random, max(size, config.crop))
        crops = []
        for _ in range(config.crops_per_image):
            top, left = random.integers(0, len(pixels) - config.crop + 1, 2)
            crop = pixels[top : top + config.crop, left : left + config.crop]
            crops.append(crop[:, ::-1] if random.random() < 0.5 else crop)
        return label, crops

    def _image(self, random: np.random.Generator, size: int) -> tuple[int, npt.NDArray[np.uint8]]:
        reason = ""
        for _ in range(_ATTEMPTS):
            instance = self._instances[int(random.integers(len(self._instances)))]
            try:
                return instance.label, decode_image(read_bytes(instance), size=size)
            except UnreadableError as error:
                reason = f"{instance.key}: {error}"
        raise SeitError(f"{_ATTEMPTS} images in a row cannot be read ({reason}); check SRC")
