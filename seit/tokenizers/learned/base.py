"""Base of tokenizers with a trained network: planes → latents → nearest codes, and back.

Legend: B inputs, H W token grid, C latent dim, K codes, L levels, N latents, P planes, Y X their
height and width.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from typing_extensions import override

from seit.errors import DamagedError
from seit.tokenizers.base import Tokenizer
from seit.tokenizers.fitted.kmeans import assign
from seit.tokenizers.learned.autoencoder import Autoencoder, NetworkConfig
from seit.tokenizers.learned.bounds import MAX_CODES, Bound

_MAX_LEVELS = 16
_GPU_INPUTS = 64
_CPU_DECODED = 4


class LearnedTokenizer(Tokenizer):
    """Nearest codes of a small ConvNet's latents; see :mod:`seit.tokenizers.learned.autoencoder`.

    A CPU encodes inputs one at a time, so that tokens do not depend on the batch. Weights are
    float16 values, computed with in float32.

    Attributes:
        num_planes: P of the network.
    """

    has_packable_weights: ClassVar[bool] = True
    num_planes: ClassVar[int]

    def __init__(self, codebook: Tensor, network: Autoencoder, *, bound: Bound | None) -> None:
        """Initialize from a codebook float32 and a network, whose ownership is taken."""
        self._bound = bound or Bound()
        # Codes of a bounded quantizer are given, not learned: float16 would move them.
        codes = codebook.half() if self._bound.kind == "none" else codebook
        self.codebook = codes.float().contiguous()
        self._network = network.half().float().eval().requires_grad_(False)
        self._network.to(memory_format=torch.channels_last)

    @property
    @abstractmethod
    def _plane_size(self) -> tuple[int, int]:
        """Size (Y, X) of the planes of an input."""

    @abstractmethod
    def _latents(self, inputs: Tensor) -> Tensor:
        """Compute latents (B, H, W, C) of inputs (B, …)."""

    @abstractmethod
    def _outputs(self, planes: Tensor) -> Tensor:
        """Turn decoded planes (B, P, Y, X) into the output of :meth:`decode`."""

    @abstractmethod
    def _with(self, codebook: Tensor, network: Autoencoder) -> Self:
        """Return a copy with another codebook and network, on their device."""

    @property
    @override
    def grid(self) -> tuple[int, int]:
        patch_height, patch_width = self._network.config.patch
        height, width = self._plane_size
        return self.levels * (height // patch_height), width // patch_width

    @override
    @torch.no_grad()
    def encode(self, inputs: Tensor, /) -> Tensor:
        group = _GPU_INPUTS if self.codebook.is_cuda else 1
        return torch.cat([self._encode(part) for part in inputs.split(group)])

    def _encode(self, inputs: Tensor) -> Tensor:
        latents_BHWC = self._latents(inputs.to(self.codebook.device))
        ids_NL = self.quantise(latents_BHWC.flatten(0, 2))
        ids_BHWL = ids_NL.view(*latents_BHWC.shape[:3], self.levels)
        return ids_BHWL.permute(0, 3, 1, 2).flatten(1, 2).contiguous()

    @torch.no_grad()
    def quantise(self, latents_NC: Tensor) -> Tensor:
        """Return the ids int64 (N, L) of latents."""
        rest_NC = self._bound(latents_NC)
        ids = []
        for codes_KC in self.codes_by_level:
            ids.append(assign(rest_NC, codes_KC))
            if len(ids) < self.levels:
                rest_NC = rest_NC - codes_KC[ids[-1]]
        return torch.stack(ids, 1)

    @override
    def decode_ids(self, tokens: Tensor, /) -> Tensor:
        group = _GPU_INPUTS if self.codebook.is_cuda else _CPU_DECODED
        return torch.cat([self._decode(part) for part in tokens.split(group)])

    def _decode(self, tokens: Tensor) -> Tensor:
        latents_BHWC = self.vectors(tokens)
        return self._outputs(self._network.decoder(latents_BHWC.permute(0, 3, 1, 2)))

    def sorted_by_use(self, inputs: Tensor) -> Self:
        """Return a copy with the codes that inputs (B, …) use most first, which helps coders."""
        ids_BLN = self.encode(inputs).flatten(1).unflatten(1, (self.levels, -1))
        order_LK = torch.stack(
            [
                torch.bincount(ids_BLN[:, level].flatten(), minlength=self.num_codes).argsort(
                    descending=True, stable=True
                )
                for level in range(self.levels)
            ]
        )
        codes_LKC = self.codes_by_level.gather(
            1, order_LK[..., None].expand(-1, -1, self.codebook_dim)
        )
        return self._with_codebook(codes_LKC.view_as(self.codebook))

    def network_weights(self) -> dict[str, Tensor]:
        """Return the network's weights, float32, to start a training from them."""
        return {key: value.clone() for key, value in self._network.state_dict().items()}

    def _with_codebook(self, codebook: Tensor) -> Self:
        network = Autoencoder(self._network.config)
        network.load_state_dict(self._network.state_dict())
        return self._with(codebook, network.to(codebook.device))

    @override
    def tensors(self) -> dict[str, Tensor]:
        return {key: value.half() for key, value in self._network.state_dict().items()}

    @override
    def settings(self) -> dict[str, Any]:
        return {"network": self._network.config.to_json(), **self._bound.to_json()}

    @classmethod
    def _read_network(
        cls, codebook: Tensor, settings: Mapping[str, Any]
    ) -> tuple[NetworkConfig, Bound]:
        """Return the network's shape and the quantizer's bound.

        Raises:
            DamagedError: they are invalid, or do not fit the codebook.
        """
        try:
            config = NetworkConfig.from_json(settings["network"])
            bound = Bound.from_json(settings)
            bound.check(codebook.shape[-2], codebook.shape[-1])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DamagedError(
                f"the settings of a {cls.name} tokenizer are invalid ({error})"
            ) from error
        if config.planes != cls.num_planes:
            raise DamagedError(f"the network of a {cls.name} tokenizer has {config.planes} planes")
        return config, bound

    @classmethod
    def _load_network(
        cls, codebook: Tensor, tensors: Mapping[str, Tensor], config: NetworkConfig
    ) -> Autoencoder:
        """Build the network with these weights.

        Raises:
            DamagedError: weights, codebook and shape do not fit together.
        """
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
        return network

    @override
    def to(self, device: str | torch.device) -> Self:
        copy = self._with_codebook(self.codebook.to(device))
        copy.packed = self.packed
        return copy
