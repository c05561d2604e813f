"""`conv-vq`: a small learned tokenizer, fast on a CPU.

Shape letters: B images, S image side, H W token grid, C latent dim, K codes, L levels, N latents.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from typing_extensions import override

from seit.errors import DamagedError
from seit.tokenizers.autoencoder import Autoencoder, NetworkConfig
from seit.tokenizers.base import ImageTokenizer
from seit.tokenizers.bounds import MAX_CODES, Bound
from seit.tokenizers.folding import FoldedEncoder
from seit.tokenizers.kmeans import assign

_MAX_IMAGE_SIZE = 1 << 14
_MAX_LEVELS = 16
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

    def __init__(
        self, codebook: Tensor, network: Autoencoder, *, image_size: int, bound: Bound | None = None
    ) -> None:
        """Hold a codebook float32 and a network, which becomes this object's own.

        Args:
            codebook: (K, C), or (L, K, C) of a residual tokenizer.
            network: between pixels and latents.
            image_size: a multiple of the network's patch sides, in pixels.
            bound: of the quantiser that it was trained with.
        """
        self.image_size = image_size
        self._bound = bound or Bound()
        # The codes of a bounded quantiser are given, not learned: rounding would move them.
        codes = codebook.half() if self._bound.kind == "none" else codebook
        self.codebook = codes.float().contiguous()
        self._network = network.half().float().eval().requires_grad_(False)
        self._network.to(memory_format=torch.channels_last)
        self._encoder = FoldedEncoder(self._network.encoder)

    @property
    @override
    def grid(self) -> tuple[int, int]:
        height, width = self._network.config.patch
        return self.levels * (self.image_size // height), self.image_size // width

    @override
    @torch.no_grad()
    def encode(self, images: Tensor, /) -> Tensor:
        group = _GPU_IMAGES if self.codebook.is_cuda else 1
        return torch.cat([self._encode(part) for part in images.split(group)])

    def _encode(self, images: Tensor) -> Tensor:
        latents_BHWC = self._encoder(images.to(self.codebook.device))
        ids_NL = self.quantise(latents_BHWC.flatten(0, 2))
        ids_BHWL = ids_NL.view(*latents_BHWC.shape[:3], self.levels)
        return ids_BHWL.permute(0, 3, 1, 2).flatten(1, 2).contiguous()

    @torch.no_grad()
    def quantise(self, latents_NC: Tensor) -> Tensor:
        """The ids int64 (N, L) of latents."""
        rest_NC = self._bound(latents_NC)
        ids = []
        for codes_KC in self._codes:
            ids.append(assign(rest_NC, codes_KC))
            if len(ids) < self.levels:
                rest_NC = rest_NC - codes_KC[ids[-1]]
        return torch.stack(ids, 1)

    @property
    def _codes(self) -> Tensor:
        """(L, K, C)."""
        return self.codebook.view(self.levels, self.num_codes, self.codebook_dim)

    @override
    @torch.no_grad()
    def decode(self, tokens: Tensor, /) -> Tensor:
        group = _GPU_IMAGES if self.codebook.is_cuda else 4
        return torch.cat([self._decode(part) for part in tokens.split(group)])

    def _decode(self, tokens: Tensor) -> Tensor:
        ids_BLHW = tokens.to(self.codebook.device).long().unflatten(1, (self.levels, -1))
        latents_BHWC = torch.stack(
            [codes_KC[ids_BLHW[:, level]] for level, codes_KC in enumerate(self._codes)]
        ).sum(0)
        return to_images(self._network.decoder(latents_BHWC.permute(0, 3, 1, 2)))

    def sorted_by_use(self, images: Tensor) -> Self:
        """The same with the codes that images (B, S, S, 3) use most first, which helps coders."""
        ids_BLN = self.encode(images).flatten(1).unflatten(1, (self.levels, -1))
        order_LK = torch.stack(
            [
                torch.bincount(ids_BLN[:, level].flatten(), minlength=self.num_codes).argsort(
                    descending=True, stable=True
                )
                for level in range(self.levels)
            ]
        )
        codes_LKC = self._codes.gather(1, order_LK[..., None].expand(-1, -1, self.codebook_dim))
        return self._with_codebook(codes_LKC.view_as(self.codebook))

    def _with_codebook(self, codebook: Tensor) -> Self:
        network = Autoencoder(self._network.config)
        network.load_state_dict(self._network.state_dict())
        return type(self)(
            codebook,
            network.to(codebook.device),
            image_size=self.image_size,
            bound=self._bound,
        )

    @override
    def tensors(self) -> dict[str, Tensor]:
        return {key: value.half() for key, value in self._network.state_dict().items()}

    @override
    def settings(self) -> dict[str, Any]:
        return {
            "image_size": self.image_size,
            "network": self._network.config.to_json(),
            **self._bound.to_json(),
        }

    @classmethod
    @override
    def restore(
        cls, codebook: Tensor, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> Self:
        try:
            image_size = int(settings["image_size"])
            config = NetworkConfig.from_json(settings["network"])
            bound = Bound.from_json(settings)
            bound.check(codebook.shape[-2], codebook.shape[-1])
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
        if codebook.shape[-1] != config.dim:
            raise DamagedError(f"codes of dim {codebook.shape[-1]}; latents have {config.dim}")
        levels = codebook.shape[0] if codebook.ndim == 3 else 1
        if codebook.shape[-2] > MAX_CODES or levels > _MAX_LEVELS:
            raise DamagedError(f"a {cls.name} tokenizer has no codebook {tuple(codebook.shape)}")
        network = network.to_empty(device="cpu")
        network.load_state_dict({key: value.float() for key, value in tensors.items()})
        return cls(codebook, network, image_size=image_size, bound=bound)

    @override
    def to(self, device: str | torch.device) -> Self:
        return self._with_codebook(self.codebook.to(device))
