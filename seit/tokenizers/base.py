"""What a tokenizer is: images → token grids, and back for looking at.

Shape letters: B images, S image side, H W token grid, K codes, C codebook dim.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor


class Tokenizer(ABC):
    """Turns uint8 images into grids of ids that index its codebook.

    Attributes:
        name: the registered name of the kind of tokenizer.
        image_size: side S of the square images that it takes, in pixels.
        codebook: float32 (K, C), the vectors that training embeds ids with.
        flip_equivariant: whether the grid of a mirrored image is the mirrored grid.
    """

    name: ClassVar[str]
    flip_equivariant: ClassVar[bool] = False
    modality: ClassVar[str] = "image"

    image_size: int
    codebook: Tensor

    @property
    @abstractmethod
    def grid(self) -> tuple[int, int]:
        """The token grid (H, W) of one image."""

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Tokenize images uint8 (B, S, S, 3), RGB, into ids int64 (B, H, W)."""

    @abstractmethod
    def decode(self, tokens: Tensor) -> Tensor:
        """Reconstruct images uint8 (B, S, S, 3) from ids int (B, H, W)."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The weights besides the codebook, by name."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The JSON-serialisable arguments that, with the weights, define the tokenizer."""

    @classmethod
    @abstractmethod
    def restore(
        cls, codebook: Tensor, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> Self:
        """Build the tokenizer that ``tensors`` and ``settings`` describe.

        Raises:
            DamagedError: they do not fit together.
        """

    @abstractmethod
    def to(self, device: str | torch.device) -> Self:
        """A copy of the tokenizer whose weights lie on ``device``."""

    def preprocessing(self) -> dict[str, Any]:
        """How pixels reach the tokenizer, for the store's card."""
        return {
            "color": "RGB",
            "resize": "shorter side, bicubic",
            "crop": "centre",
            "size": self.image_size,
        }

    @property
    def num_codes(self) -> int:
        """K."""
        return self.codebook.shape[0]

    @property
    def fingerprint(self) -> str:
        """The sha256 of name, settings and weights: equal if and only if the tokens would be."""
        digest = hashlib.sha256(json.dumps([self.name, self.settings()], sort_keys=True).encode())
        for key, tensor in sorted({**self.tensors(), "codebook": self.codebook}.items()):
            digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()
