"""Crops of the images of a corpus."""

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from seit.ingest import Instance, decode_image, read_bytes
from seit.tokenizer_training.batches import Batches


class Crops(Batches):
    """Batches of crops at random scale and place of random images, half of them mirrored."""

    noun = "images"

    @override
    def _crops(self, random: np.random.Generator) -> tuple[Instance, list[Tensor]]:
        config = self._config
        low, high = np.log(config.scale)
        size = round(config.size * float(np.exp(random.uniform(low, high))))
        side = max(size, config.crop)
        instance, pixels = self._draw(
            random, lambda number: decode_image(read_bytes(self._instances[number]), size=side)
        )
        crops = []
        for _ in range(config.crops_per_image):
            top, left = random.integers(0, len(pixels) - config.crop + 1, 2)
            crop = pixels[top : top + config.crop, left : left + config.crop]
            crop = crop[:, ::-1] if random.random() < 0.5 else crop
            crops.append(torch.from_numpy(np.ascontiguousarray(crop)))
        return instance, crops
