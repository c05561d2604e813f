"""The quantisers of a training, from vector-quantize-pytorch, behind one face.

Shape letters: B batch, C latent dim, H W grid, K codes.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from seit.errors import UsageError
from seit.train.tokenizers.config import TokenizerConfig

_EMA_DECAY = 0.99
_DEAD_BELOW = 0.5
"""Average uses a step below which a code is restarted at a latent of the batch."""


class Quantized(NamedTuple):
    """What a quantiser makes of latents."""

    latents: Tensor
    """(B, C, H, W), the codes; gradients pass straight through."""
    ids: Tensor
    """(B, H, W) int64."""
    loss: Tensor
    """Scalar: commitment or entropy."""


class Quantizer(nn.Module):
    """Latents (B, C, H, W) → codes.

    Attributes:
        dim: C.
    """

    dim: int

    @override
    def forward(self, latents: Tensor) -> Quantized:
        raise NotImplementedError

    def start(self, centres_KC: Tensor) -> None:
        """Begin from given codes, where the codes are learned."""

    def codebook(self) -> Tensor:
        """float32 (K, C), as an untrained reader looks codes up."""
        raise NotImplementedError


class LearnedQuantizer(Quantizer):
    """`vq`: nearest codes, moved by averages of the latents that choose them."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.dim = config.dim
        self.inner = _library().VectorQuantize(
            dim=config.dim,
            codebook_size=config.codes,
            decay=_EMA_DECAY,
            threshold_ema_dead_code=_DEAD_BELOW,
            commitment_weight=config.commitment,
            rotation_trick=False,
            accept_image_fmap=True,
        )

    @override
    def forward(self, latents: Tensor) -> Quantized:
        codes, ids, loss = self.inner(latents)
        return Quantized(codes, ids, loss)

    @override
    @torch.no_grad()
    def start(self, centres_KC: Tensor) -> None:
        inner = self.inner._codebook
        inner.embed.copy_(centres_KC[None])
        inner.embed_avg.copy_(centres_KC[None])
        inner.cluster_size.fill_(1.0)
        inner.initted.fill_(True)

    @override
    def codebook(self) -> Tensor:
        return cast(Tensor, self.inner.codebook).detach().clone()


def _library() -> Any:
    try:
        import vector_quantize_pytorch
    except ImportError as error:
        raise UsageError(
            "training a tokenizer needs vector-quantize-pytorch; `pip install 'seit[tokenizers]'`"
        ) from error
    return vector_quantize_pytorch
