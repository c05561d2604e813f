"""Quantizers for training, wrapping vector-quantize-pytorch.

Legend: B batch, C latent dim, H W grid, K codes, L levels, N latents.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from seit.errors import UsageError
from seit.extras import how_to_install
from seit.tokenizer_training.config import TokenizerConfig
from seit.tokenizers import Bound, assign, fit_kmeans

_EMA_DECAY = 0.99
_ENTROPY = 0.1
_DEAD_BELOW = 0.5
"""Average uses per step below which a code is replaced by a latent of the batch."""


class Quantized(NamedTuple):
    """Quantized latents."""

    latents: Tensor
    """Codes (B, C, H, W), with straight-through gradients."""
    ids: Tensor
    """Ids (B, L, H, W), int64."""
    loss: Tensor
    """Commitment or entropy loss, a scalar."""


class Quantizer(nn.Module):
    """Latents (B, C, H, W) → codes.

    Attributes:
        dim: C.
        bound: transform of latents before the search for nearest codes, for readers.
    """

    dim: int
    bound: Bound = Bound()

    @override
    def forward(self, latents: Tensor) -> Quantized:
        raise NotImplementedError

    def start(self, latents_NC: Tensor, *, seed: int) -> None:
        """Initialize learned codes from clusters of latents."""

    def restore(self, codebook: Tensor) -> None:
        """Initialize learned codes from the output of :meth:`codebook`."""

    def codebook(self) -> Tensor:
        """Return the codebook float32 (K, C) or (L, K, C), as used by readers."""
        raise NotImplementedError


class LearnedQuantizer(Quantizer):
    """`vq`: nearest codes, updated to averages of the latents assigned to them."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.dim = config.dim
        self.inner = _library().VectorQuantize(**_moving_average(config))

    @override
    def forward(self, latents: Tensor) -> Quantized:
        codes, ids, loss = self.inner(latents)
        return Quantized(codes, ids[:, None], loss)

    @override
    @torch.no_grad()
    def start(self, latents_NC: Tensor, *, seed: int) -> None:
        self.restore(fit_kmeans(latents_NC, self.inner.codebook_size, seed=seed))

    @override
    @torch.no_grad()
    def restore(self, codebook: Tensor) -> None:
        _start_from(self.inner, codebook)

    @override
    def codebook(self) -> Tensor:
        return cast(Tensor, self.inner.codebook).detach().clone()


class ResidualQuantizer(Quantizer):
    """`rvq`: several levels of learned codes, each quantizing the residual of the previous ones."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.dim = config.dim
        self.inner = _library().ResidualVQ(num_quantizers=config.depth, **_moving_average(config))

    @override
    def forward(self, latents: Tensor) -> Quantized:
        codes, ids_BHWL, losses = self.inner(latents)
        return Quantized(codes, ids_BHWL.permute(0, 3, 1, 2), losses.sum())

    @override
    @torch.no_grad()
    def start(self, latents_NC: Tensor, *, seed: int) -> None:
        for level, layer in enumerate(self.inner.layers):
            centres_KC = fit_kmeans(latents_NC, layer.codebook_size, seed=seed + level)
            _start_from(layer, centres_KC)
            latents_NC = latents_NC - centres_KC[assign(latents_NC, centres_KC)]

    @override
    @torch.no_grad()
    def restore(self, codebook: Tensor) -> None:
        for layer, codes_KC in zip(self.inner.layers, codebook, strict=True):
            _start_from(layer, codes_KC)

    @override
    def codebook(self) -> Tensor:
        return cast(Tensor, self.inner.codebooks).detach().clone()


class ScalarQuantizer(Quantizer):
    """`fsq`: each dim is bounded and rounded to a few levels; all combinations are codes."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.dim = len(config.levels)
        self.bound = Bound(kind="tanh", levels=config.levels)
        self.inner = _library().FSQ(list(config.levels))

    @override
    def forward(self, latents: Tensor) -> Quantized:
        codes, ids = self.inner(latents)
        return Quantized(codes, ids[:, None].long(), latents.new_zeros(()))

    @override
    def codebook(self) -> Tensor:
        return cast(Tensor, self.inner.implicit_codebook).detach().clone()


class SignQuantizer(Quantizer):
    """`lfq`: the sign of each dim; an entropy loss keeps codes distinct and in use."""

    bound = Bound(kind="sign")

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.dim = config.codes.bit_length() - 1
        self.inner = _library().LFQ(
            codebook_size=config.codes,
            entropy_loss_weight=_ENTROPY,
            commitment_loss_weight=config.commitment,
        )

    @override
    def forward(self, latents: Tensor) -> Quantized:
        codes, ids, loss = self.inner(latents)
        return Quantized(codes, ids[:, None].long(), loss)

    @override
    def codebook(self) -> Tensor:
        return cast(Tensor, self.inner.codebook).detach().clone()


QUANTIZERS: dict[str, type[Quantizer]] = {
    "vq": LearnedQuantizer,
    "rvq": ResidualQuantizer,
    "fsq": ScalarQuantizer,
    "lfq": SignQuantizer,
}
"""Quantizers by name in a config."""


def make_quantizer(config: TokenizerConfig) -> Quantizer:
    """Create a quantizer; raise UsageError if vector-quantize-pytorch is not installed."""
    kind: Any = QUANTIZERS[config.quantizer]
    quantizer: Quantizer = kind(config)
    return quantizer


def _moving_average(config: TokenizerConfig) -> dict[str, Any]:
    return {
        "dim": config.dim,
        "codebook_size": config.codes,
        "decay": _EMA_DECAY,
        "threshold_ema_dead_code": _DEAD_BELOW,
        "commitment_weight": config.commitment,
        "rotation_trick": False,
        "accept_image_fmap": True,
    }


def _start_from(layer: Any, centres_KC: Tensor) -> None:
    """Initialize the codes of a learned quantizer."""
    inner = layer._codebook
    inner.embed.copy_(centres_KC[None])
    inner.embed_avg.copy_(centres_KC[None])
    inner.cluster_size.fill_(1.0)
    inner.initted.fill_(True)


def _library() -> Any:
    try:
        import vector_quantize_pytorch
    except ImportError as error:
        raise UsageError(
            "training a tokenizer needs vector-quantize-pytorch; " + how_to_install("tokenizers")
        ) from error
    return vector_quantize_pytorch
