"""A network of timm as a subject, on the pixels of pictures.

Legend: B batch, H W pixels, h w grid of a layer, D features.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from seit.analysis.subjects.base import Clip, Place, Subject
from seit.analysis.subjects.pictures import Pictures
from seit.errors import UsageError
from seit.models import VisionNetwork, captured, timm_layers

PIXELS = "pixels"
"""Name of the only layer of the baseline."""
_SIDE = 8


class VisionSubject(Subject):
    """A network of timm; a layer of a picture is the mean over its patches.

    Args:
        network: the network.
        pictures: pictures, made by the transform of its inputs.
        device: device of the network.
        layers: paths of modules to read; None for the blocks of a ViT or the stages of others.

    Raises:
        UsageError: it has no such module.
    """

    batch_size = 32

    def __init__(
        self,
        network: VisionNetwork,
        pictures: Pictures,
        *,
        device: torch.device,
        layers: Sequence[str] | None = None,
    ) -> None:
        self.network, self.pictures, self.device = network, pictures, device
        self.classes, self.is_random = pictures.classes, network.is_random
        self.name = f"{network.name} (random weights)" if network.is_random else network.name
        self.model: Any = network.model.to(device).eval()
        self._given = layers
        self._layers = timm_layers(self.model, layers)
        self.layers = self._layers.names

    @property
    @override
    def places(self) -> Sequence[Place]:
        return self.pictures.places

    @override
    def fingerprint(self) -> str:
        return self.pictures.fingerprint

    @override
    def random_twin(self, seed: int) -> "VisionSubject":
        return VisionSubject(
            self.network.with_random_weights(seed),
            self.pictures,
            device=self.device,
            layers=self._given,
        )

    @override
    def clips(self, rows: Sequence[int] | None = None) -> Iterator[Clip]:
        numbers = range(len(self.places)) if rows is None else rows
        for start in range(0, len(numbers), self.batch_size):
            batch = numbers[start : start + self.batch_size]
            pixels = torch.from_numpy(np.stack([self.pictures.pixels[row] for row in batch]))
            values = {name: one.float().cpu().numpy() for name, one in self._read(pixels).items()}
            for place, row in enumerate(batch):
                yield Clip(row=row, values={name: one[place] for name, one in values.items()})

    def _read(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the mean activations (B, 1, D) of pixels (B, 3, H, W) by layer."""
        layers = self._layers
        inputs = self.network.inputs.scaled(pixels.to(self.device))
        shape = (inputs.shape[2], inputs.shape[3])
        with (
            torch.inference_mode(),
            captured(self.model, layers.outputs, inputs=layers.inputs) as found,
        ):
            self.model.forward_head(self.model.forward_features(inputs))
        means = {}
        for name in self.layers:
            if name not in found or len(found[name]) != len(pixels):
                raise UsageError(
                    f"the module {name} of {self.name} does not give one activation a picture; "
                    "read another layer"
                )
            means[name] = layers.grid(name, found[name], shape).mean((1, 2))[:, None]
        return means


class PixelSubject(Subject):
    """Pixels as a baseline: pictures of 8 × 8 pixels, a subject without a network.

    Args:
        pictures: pictures of any size.
    """

    name = "pixels"
    layers = (PIXELS,)

    def __init__(self, pictures: Pictures) -> None:
        self.pictures, self.classes = pictures, pictures.classes

    @property
    @override
    def places(self) -> Sequence[Place]:
        return self.pictures.places

    @override
    def clips(self, rows: Sequence[int] | None = None) -> Iterator[Clip]:
        for row in range(len(self.places)) if rows is None else rows:
            pixels = torch.from_numpy(self.pictures.pixels[row]).float() / 255
            small = torch.nn.functional.adaptive_avg_pool2d(pixels, _SIDE)
            yield Clip(row=row, values={PIXELS: small.flatten()[None].numpy()})

    @override
    def fingerprint(self) -> str:
        return self.pictures.fingerprint

    @override
    def random_twin(self, seed: int) -> Subject:
        raise NotImplementedError("pixels have no weights")
