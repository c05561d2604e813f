"""`conv-vq`: a small learned tokenizer, fast on a CPU.

Shape letters: B images, S image side, H W token grid, C latent dim, K codes.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from typing_extensions import override

from seit.errors import DamagedError
from seit.tokenizers.autoencoder import Autoencoder, NetworkConfig
from seit.tokenizers.base import ImageTokenizer
from seit.tokenizers.kmeans import assign

_MAX_IMAGE_SIZE = 1 << 14
_GPU_IMAGES = 64


def to_planes(images: Tensor) -> Tensor:
    """Images uint8 (B, Y, X, 3) → float32 (B, 3, Y, X), −1…1."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(planes: Tensor) -> Tensor:
    """The way back, rounded and clipped."""
    values = ((planes.float() + 1) * 127.5).round().clamp(0, 255)
    return values.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


class ConvTokenizer(ImageTokenizer):
    """Nearest codes of a small ConvNet's latents; see :mod:`seit.tokenizers.autoencoder`.

    Images are encoded one at a time on a CPU, so that tokens do not depend on what they are
    batched with. Weights are float16 values, computed with in float32.
    """

    name: ClassVar[str] = "conv-vq"

    def __init__(self, codebook: Tensor, network: Autoencoder, *, image_size: int) -> None:
        """Hold a codebook float32 (K, C) and a network, which becomes this object's own."""
        self.codebook = codebook.half().float().contiguous()
        self.image_size = image_size
        self._network = network.half().float().eval().requires_grad_(False)
        self._network.to(memory_format=torch.channels_last)

    @property
    @override
    def grid(self) -> tuple[int, int]:
        height, width = self._network.config.patch
        return self.image_size // height, self.image_size // width

    @override
    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        group = _GPU_IMAGES if self.codebook.is_cuda else 1
        return torch.cat([self._encode(part) for part in images.split(group)])

    def _encode(self, images: Tensor) -> Tensor:
        latents_BCHW = self._network.encoder(to_planes(images.to(self.codebook.device)))
        latents_BHWC = latents_BCHW.permute(0, 2, 3, 1)
        return assign(latents_BHWC.flatten(0, 2), self.codebook).view(latents_BHWC.shape[:3])

    @override
    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        group = _GPU_IMAGES if self.codebook.is_cuda else 4
        return torch.cat([self._decode(part) for part in tokens.split(group)])

    def _decode(self, tokens: Tensor) -> Tensor:
        latents_BHWC = self.codebook[tokens.to(self.codebook.device).long()]
        return to_images(self._network.decoder(latents_BHWC.permute(0, 3, 1, 2)))

    @override
    def tensors(self) -> dict[str, Tensor]:
        return {key: value.half() for key, value in self._network.state_dict().items()}

    @override
    def settings(self) -> dict[str, Any]:
        return {"image_size": self.image_size, "network": self._network.config.to_json()}

    @classmethod
    @override
    def restore(
        cls, codebook: Tensor, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> Self:
        try:
            image_size = int(settings["image_size"])
            config = NetworkConfig.from_json(settings["network"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DamagedError(
                f"the settings of a {cls.name} tokenizer are no such ({error})"
            ) from error
        if not 8 <= image_size <= _MAX_IMAGE_SIZE or any(
            image_size % side for side in config.patch
        ):
            raise DamagedError(f"a {cls.name} tokenizer cuts {image_size} px into {config.patch}")
        with torch.device("meta"):
            network = Autoencoder(config)
        expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        found = {key: tuple(value.shape) for key, value in tensors.items()}
        if found != expected or any(x.dtype != torch.float16 for x in tensors.values()):
            raise DamagedError(f"the weights of a {cls.name} tokenizer do not fit its settings")
        if codebook.shape[1] != config.dim:
            raise DamagedError(f"codes of dim {codebook.shape[1]}; latents have {config.dim}")
        network = network.to_empty(device="cpu")
        network.load_state_dict({key: value.float() for key, value in tensors.items()})
        return cls(codebook, network, image_size=image_size)

    @override
    def to(self, device: str | torch.device) -> Self:
        network = Autoencoder(self._network.config)
        network.load_state_dict(self._network.state_dict())
        return type(self)(self.codebook.to(device), network.to(device), image_size=self.image_size)
