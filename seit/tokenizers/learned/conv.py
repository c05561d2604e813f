"""`conv-vq`: a small learned tokenizer of images, fast on a CPU.

Legend: B images, S image side, H W token grid, C latent dim, K codes, L levels.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from typing_extensions import override

from seit.errors import DamagedError
from seit.tokenizers.base import ImageTokenizer
from seit.tokenizers.learned.autoencoder import Autoencoder
from seit.tokenizers.learned.base import LearnedTokenizer
from seit.tokenizers.learned.bounds import Bound
from seit.tokenizers.learned.folded import FoldedEncoder

_MAX_IMAGE_SIZE = 1 << 14


def to_planes(images: Tensor) -> Tensor:
    """Convert images uint8 (B, Y, X, 3) to float32 (B, 3, Y, X), −1…1."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(planes: Tensor) -> Tensor:
    """Round and clip planes float (B, 3, Y, X), −1…1, to images uint8 (B, Y, X, 3)."""
    values = ((planes.float() + 1) * 127.5).round().clamp(0, 255)
    return values.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


class ConvTokenizer(LearnedTokenizer, ImageTokenizer):
    """Nearest codes of an image's latents; see :class:`LearnedTokenizer`."""

    name: ClassVar[str] = "conv-vq"
    num_planes: ClassVar[int] = 3

    def __init__(
        self, codebook: Tensor, network: Autoencoder, *, image_size: int, bound: Bound | None = None
    ) -> None:
        """Initialize from a codebook float32 and a network, whose ownership is taken.

        Args:
            codebook: (K, C), or (L, K, C) of a residual tokenizer.
            network: network between pixels and latents.
            image_size: multiple of the network's patch sides, in pixels.
            bound: bound of the quantizer that it was trained with.
        """
        super().__init__(codebook, network, bound=bound)
        self.image_size = image_size
        self._encoder = FoldedEncoder(self._network.encoder, divisor=127.5, offset=-1)

    @property
    @override
    def _plane_size(self) -> tuple[int, int]:
        return self.image_size, self.image_size

    @override
    def _latents(self, inputs: Tensor) -> Tensor:
        return self._encoder(inputs)

    @override
    def _outputs(self, planes: Tensor) -> Tensor:
        return to_images(planes)

    @override
    def _with(self, codebook: Tensor, network: Autoencoder) -> Self:
        return type(self)(codebook, network, image_size=self.image_size, bound=self._bound)

    @override
    def settings(self) -> dict[str, Any]:
        return {"image_size": self.image_size, **super().settings()}

    @classmethod
    @override
    def restore(
        cls, codebook: Tensor, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> Self:
        config, bound = cls._read_network(codebook, settings)
        image_size = settings.get("image_size")
        if (
            type(image_size) is not int
            or not 8 <= image_size <= _MAX_IMAGE_SIZE
            or any(image_size % side for side in config.patch)
        ):
            raise DamagedError(f"a {cls.name} tokenizer cuts {image_size} px into {config.patch}")
        network = cls._load_network(codebook, tensors, config)
        return cls(codebook, network, image_size=image_size, bound=bound)
