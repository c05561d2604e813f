"""Base of published image tokenizers: a network between pixels and latents, and codes.

Legend: B images, S image side, H W token grid, C latent dim, K codes, N latents.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from seit.errors import DamagedError, UsageError
from seit.tokenizers.base import ImageTokenizer
from seit.tokenizers.fitted.kmeans import assign
from seit.tokenizers.published.checkpoints import StateDict, load_strictly
from seit.tokenizers.published.references import ReferableTokenizer

DEFAULT_SIZE = 256
MAX_CODES = 1 << 20
_MAX_IMAGE_SIZE = 1 << 12
_GPU_IMAGES = 16
_SAME_CODE = 0.01
"""Largest distance of a code from the same one of another file, over its length."""


class ImageNetwork(nn.Module, ABC):
    """Encoder and decoder of a published architecture, for inference.

    Attributes:
        patch: pixels per token, along an image's side.
        dim: C.
        image_size: the only image side that it takes; None if its weights do not fix one.
    """

    patch: int
    dim: int
    image_size: int | None = None

    encoder: nn.Module
    decoder: nn.Module

    @abstractmethod
    def __init__(self, weights: StateDict) -> None:
        """Build a network with the shapes of the weights.

        Raises:
            UsageError: they are not of this architecture.
        """
        super().__init__()

    @classmethod
    def of(cls, weights: StateDict) -> Self:
        """Build the network with the shapes of the weights, and load them.

        Raises:
            UsageError: they are not of this architecture.
        """
        with torch.device("meta"):
            network = cls(weights)
        load_strictly(network, weights)
        return network

    def analyse(self, planes: Tensor) -> Tensor:
        """Encode planes (B, 3, S, S) in the range of its training into latents (B, C, H, W)."""
        latents: Tensor = self.encoder(planes)
        return latents

    def synthesise(self, latents: Tensor) -> Tensor:
        """Decode quantized latents (B, C, H, W) into planes (B, 3, S, S)."""
        planes: Tensor = self.decoder(latents)
        return planes


class PublishedTokenizer(ReferableTokenizer, ImageTokenizer):
    """Nearest codes of a published network's latents; a CPU takes one image at a time.

    Attributes:
        network_class: architecture of the network.
        lowest: the network's value of black, −1 or 0; white is 1.
        has_unit_codes: whether latents and codes are compared on the unit sphere.
        published_resize: how its authors made images square; recorded, not applied.
    """

    has_packable_weights: ClassVar[bool] = True
    network_class: ClassVar[type[ImageNetwork]]
    lowest: ClassVar[float] = -1.0
    has_unit_codes: ClassVar[bool] = False
    published_resize: ClassVar[str] = "shorter side, then the centre"

    def __init__(
        self,
        codebook: Tensor,
        network: ImageNetwork | None,
        *,
        image_size: int,
        patch_size: int,
        referred: str | None = None,
    ) -> None:
        """Take over a codebook float32 (K, C) and a network, which is None for a reference."""
        self.codebook = codebook.contiguous()
        self.image_size = image_size
        self._patch_size = patch_size
        self._network = network.eval().requires_grad_(False) if network is not None else None
        self._referred = referred

    @classmethod
    def assemble(cls, codebook: Tensor, network: ImageNetwork, *, size: int | None) -> Self:
        """Build a tokenizer for images of ``size`` px; by default the size of its training.

        Raises:
            UsageError: the network takes no such images, or the codebook does not fit it.
        """
        image_size = size or network.image_size or DEFAULT_SIZE
        if network.image_size not in (None, image_size):
            raise UsageError(
                f"this {cls.name} takes images of {network.image_size} px and no others; leave "
                "--size out"
            )
        if image_size % network.patch or not network.patch <= image_size <= _MAX_IMAGE_SIZE:
            raise UsageError(
                f"size is {image_size}; this {cls.name} takes multiples of {network.patch} px up "
                f"to {_MAX_IMAGE_SIZE}"
            )
        if codebook.ndim != 2 or codebook.shape[1] != network.dim or len(codebook) < 2:
            raise UsageError(
                f"codes of shape {tuple(codebook.shape)}; this {cls.name} has (K, {network.dim})"
            )
        if len(codebook) > MAX_CODES:
            raise UsageError(f"{len(codebook):,} codes; a codebook has at most {MAX_CODES:,}")
        codebook = codebook.detach().to(torch.float32, copy=True)
        if cls.has_unit_codes:
            codebook = functional.normalize(codebook, dim=1)
        return cls(codebook, network, image_size=image_size, patch_size=network.patch)

    @property
    def network(self) -> ImageNetwork:
        """Network of the tokenizer.

        Raises:
            UsageError: this is a reference without weights.
        """
        if self._network is None:
            raise self.missing_weights()
        return self._network

    @property
    @override
    def grid(self) -> tuple[int, int]:
        side = self.image_size // self._patch_size
        return side, side

    @override
    @torch.no_grad()
    def encode(self, images: Tensor, /) -> Tensor:
        group = _GPU_IMAGES if self.codebook.is_cuda else 1
        return torch.cat([self._encode(part) for part in images.split(group)])

    def _encode(self, images: Tensor) -> Tensor:
        latents_BCHW = self.network.analyse(self._to_planes(images))
        latents_BHWC = latents_BCHW.permute(0, 2, 3, 1)
        return self.quantise(latents_BHWC.flatten(0, 2)).view(latents_BHWC.shape[:3])

    def quantise(self, latents_NC: Tensor) -> Tensor:
        """Return the ids int64 (N,) of latents."""
        if self.has_unit_codes:
            latents_NC = functional.normalize(latents_NC, dim=1)
        return assign(latents_NC, self.codebook)

    @override
    def decode_ids(self, tokens: Tensor, /) -> Tensor:
        group = _GPU_IMAGES if self.codebook.is_cuda else 1
        return torch.cat([self._decode(part) for part in tokens.split(group)])

    def _decode(self, tokens: Tensor) -> Tensor:
        latents_BHWC = self.codebook[tokens]
        planes = self.network.synthesise(latents_BHWC.permute(0, 3, 1, 2))
        values = (planes - self.lowest) * (255 / (1 - self.lowest))
        return values.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def _to_planes(self, images: Tensor) -> Tensor:
        planes = images.to(self.codebook.device).permute(0, 3, 1, 2).float() / 255
        return planes * (1 - self.lowest) + self.lowest

    def restricted(self, codes: Tensor) -> Self:
        """Return a copy with only some of its codes, in the given order.

        Args:
            codes: their numbers int (n,), or the codes themselves (n, C).

        Raises:
            UsageError: they are not its codes.
        """
        if codes.is_floating_point() and codes.ndim == 2:
            codes = self._numbers_of(codes.float())
        if codes.is_floating_point() or codes.ndim != 1:
            raise UsageError(f"codes {codes.dtype} {tuple(codes.shape)} are neither ids nor codes")
        numbers = codes.long()
        if len(numbers) < 2 or int(numbers.min()) < 0 or int(numbers.max()) >= self.num_codes:
            raise UsageError(
                f"{len(numbers)} codes numbered {int(numbers.min())} to {int(numbers.max())}; "
                f"this {self.name} has 0 to {self.num_codes - 1} and needs at least two"
            )
        if len(numbers.unique()) != len(numbers):
            raise UsageError("a code is listed twice among those in use")
        return self._selected(numbers)

    def _selected(self, numbers: Tensor) -> Self:
        return type(self)(
            self.codebook[numbers],
            self.network,
            image_size=self.image_size,
            patch_size=self._patch_size,
        )

    def _numbers_of(self, codes: Tensor) -> Tensor:
        if codes.shape[1] != self.codebook.shape[1]:
            raise UsageError(
                f"codes of dim {codes.shape[1]}; those of this {self.name} are of dim "
                f"{self.codebook.shape[1]}"
            )
        wanted = functional.normalize(codes, dim=1) if self.has_unit_codes else codes
        numbers = assign(wanted, self.codebook)
        distance = (wanted - self.codebook[numbers]).norm(dim=1)
        strangers = int((distance > _SAME_CODE * wanted.norm(dim=1)).sum())
        if strangers:
            raise UsageError(
                f"{strangers} of the {len(codes)} codes are none of this {self.name}: they belong "
                "to another checkpoint"
            )
        return numbers

    @override
    def tensors(self) -> dict[str, Tensor]:
        return {} if self._network is None else dict(self._network.state_dict())

    @override
    def settings(self) -> dict[str, Any]:
        return {"image_size": self.image_size, "patch_size": self._patch_size}

    @override
    def preprocessing(self) -> dict[str, Any]:
        return {
            **super().preprocessing(),
            "values": f"{self.lowest:g} to 1",
            "published_resize": self.published_resize,
        }

    @classmethod
    @override
    def restore(
        cls, codebook: Tensor, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> Self:
        image_size, patch_size = cls._sizes(settings)
        weights = StateDict(tensors, origin="the file", kind=cls.name)
        try:
            network = cls.network_class.of(weights)
            tokenizer = cls.assemble(codebook, network, size=image_size)
        except UsageError as error:
            raise DamagedError(f"a {cls.name} tokenizer is damaged: {error}") from error
        if network.patch != patch_size:
            raise DamagedError(f"a {cls.name} tokenizer has patches of {network.patch} px")
        tokenizer.codebook = codebook.contiguous()
        return tokenizer

    @classmethod
    @override
    def reference(cls, codebook: Tensor, settings: Mapping[str, Any], fingerprint: str) -> Self:
        image_size, patch_size = cls._sizes(settings)
        if codebook.ndim != 2:
            raise DamagedError(f"a {cls.name} tokenizer has no codes {tuple(codebook.shape)}")
        return cls(
            codebook, None, image_size=image_size, patch_size=patch_size, referred=fingerprint
        )

    @classmethod
    def _sizes(cls, settings: Mapping[str, Any]) -> tuple[int, int]:
        try:
            image_size, patch_size = settings["image_size"], settings["patch_size"]
        except (KeyError, TypeError) as error:
            raise DamagedError(f"the settings of a {cls.name} tokenizer lack {error}") from error
        whole = type(image_size) is int and type(patch_size) is int
        if not whole or not 1 <= patch_size <= image_size <= _MAX_IMAGE_SIZE:
            raise DamagedError(f"a {cls.name} tokenizer cuts {image_size} px into {patch_size} px")
        if image_size % patch_size:
            raise DamagedError(f"a {cls.name} tokenizer cuts {image_size} px into {patch_size} px")
        return cast(int, image_size), cast(int, patch_size)

    @override
    def to(self, device: str | torch.device) -> Self:
        network = self._network
        if network is not None:
            network = type(network).of(
                StateDict(network.state_dict(), origin="a copy", kind=self.name)
            )
            network = network.to(device)
        copy = type(self)(
            self.codebook.to(device),
            network,
            image_size=self.image_size,
            patch_size=self._patch_size,
            referred=self._referred,
        )
        copy.packed = self.packed
        return copy
