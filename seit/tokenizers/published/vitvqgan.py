"""`vitvqgan`: two transformers around a small codebook of unit vectors.

Yu et al., "Vector-quantized Image Modeling with Improved VQGAN" (2021), in the layout of
enhancing-transformers, whose small and base models SeiT tokenizes with. The feed-forward layers
have a tanh; patches, width, depth and heads (of 64 dimensions) are read from the weights.

Legend: B images, S image side, H W grid, L = H·W tokens, D width, C latent dim.
"""

import math
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from seit.tokenizers.published.base import ImageNetwork, PublishedTokenizer
from seit.tokenizers.published.checkpoints import StateDict
from seit.tokenizers.published.vqgan import checked_count

HEAD_DIM = 64
CODEBOOK = "quantizer.embedding.weight"
_MAX_DEPTH = 64


class Attention(nn.Module):
    """Multi-head self-attention; one linear map without bias makes queries, keys and values."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.to_qkv = nn.Linear(width, 3 * inner, bias=False)
        self.to_out = nn.Linear(inner, width)

    @override
    def forward(self, x_BLD: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(2, (-1, HEAD_DIM)).transpose(1, 2)
            for part in self.to_qkv(x_BLD).chunk(3, dim=2)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.to_out(mixed.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """Linear, tanh, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, width))

    @override
    def forward(self, x_BLD: Tensor) -> Tensor:
        out: Tensor = self.net(x_BLD)
        return out


class Prenormed(nn.Module):
    """Layer norm before a layer, whose output is added to the input."""

    def __init__(self, width: int, layer: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fn = layer

    @override
    def forward(self, x_BLD: Tensor) -> Tensor:
        out: Tensor = x_BLD + self.fn(self.norm(x_BLD))
        return out


class Transformer(nn.Module):
    """Pairs of attention and feed-forward, and a final layer norm."""

    def __init__(self, weights: StateDict, prefix: str, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for index in range(checked_count(weights, f"{prefix}.layers", _MAX_DEPTH)):
            here = f"{prefix}.layers.{index}"
            tripled = weights.shape(f"{here}.0.fn.to_qkv.weight", 2)[0]
            hidden = weights.shape(f"{here}.1.fn.net.0.weight", 2)[0]
            if tripled % (3 * HEAD_DIM):
                raise weights.refusal(f"{here} has no heads of {HEAD_DIM} dimensions")
            attention = Prenormed(width, Attention(width, tripled // 3))
            feed_forward = Prenormed(width, FeedForward(width, hidden))
            self.layers.append(nn.ModuleList([attention, feed_forward]))
        self.norm = nn.LayerNorm(width)

    @override
    def forward(self, x_BLD: Tensor) -> Tensor:
        for pair in self.layers:
            assert isinstance(pair, nn.ModuleList)
            for layer in pair:
                x_BLD = layer(x_BLD)
        out: Tensor = self.norm(x_BLD)
        return out


def _patches_of(weights: StateDict, key: str) -> tuple[int, int]:
    """Return width and patch side of a convolution whose stride is its kernel's side."""
    width, planes, height, side = weights.shape(key, 4)
    if planes != 3 or height != side:
        raise weights.refusal(f"{key} is not for square patches of three colors")
    return width, side


def _grid_side(weights: StateDict, key: str) -> int:
    places = weights.shape(key, 3)[1]
    side = math.isqrt(places)
    if side * side != places:
        raise weights.refusal(f"{key} is for {places} places, which is no square")
    return side


class Encoder(nn.Module):
    """Encoder: planes (B, 3, S, S) → (B, L, D)."""

    def __init__(self, weights: StateDict) -> None:
        super().__init__()
        self.width, patch = _patches_of(weights, "encoder.to_patch_embedding.0.weight")
        convolution = nn.Conv2d(3, self.width, patch, stride=patch)
        self.to_patch_embedding = nn.ModuleList([convolution])
        self.side = _grid_side(weights, "encoder.en_pos_embedding")
        self.en_pos_embedding = nn.Parameter(torch.empty(1, self.side**2, self.width))
        self.transformer = Transformer(weights, "encoder.transformer", self.width)
        self.patch = patch

    @override
    def forward(self, planes: Tensor) -> Tensor:
        patches_BLD = self.to_patch_embedding[0](planes).flatten(2).transpose(1, 2)
        out: Tensor = self.transformer(patches_BLD + self.en_pos_embedding)
        return out


class Decoder(nn.Module):
    """Decoder: (B, L, D) → planes (B, 3, S, S)."""

    def __init__(self, weights: StateDict, name: str) -> None:
        super().__init__()
        self.width, self.patch = _patches_of(weights, f"decoder.to_pixel.{name}.weight")
        self.side = _grid_side(weights, "decoder.de_pos_embedding")
        self.de_pos_embedding = nn.Parameter(torch.empty(1, self.side**2, self.width))
        self.transformer = Transformer(weights, "decoder.transformer", self.width)
        convolution = nn.ConvTranspose2d(self.width, 3, self.patch, stride=self.patch)
        self.to_pixel = nn.ModuleDict({name: convolution})

    @override
    def forward(self, tokens_BLD: Tensor) -> Tensor:
        x_BLD = self.transformer(tokens_BLD + self.de_pos_embedding)
        x_BDHW = x_BLD.transpose(1, 2).unflatten(2, (self.side, self.side))
        (convolution,) = self.to_pixel.values()
        out: Tensor = convolution(x_BDHW)
        return out


class VitVqganNetwork(ImageNetwork):
    """Two transformers and the linear maps to codes and back."""

    def __init__(self, weights: StateDict) -> None:
        super().__init__(weights)
        self.encoder = Encoder(weights)
        self.decoder = Decoder(weights, "1")
        if (self.encoder.patch, self.encoder.side) != (self.decoder.patch, self.decoder.side):
            raise weights.refusal("its encoder and decoder have other patches or grids")
        self.patch = self.encoder.patch
        self.image_size = self.patch * self.encoder.side
        self.dim = weights.shape("pre_quant.weight", 2)[0]
        self.pre_quant = nn.Linear(self.encoder.width, self.dim)
        self.post_quant = nn.Linear(self.dim, self.decoder.width)

    @override
    def analyse(self, planes: Tensor) -> Tensor:
        latents_BLC = self.pre_quant(self.encoder(planes))
        side = self.encoder.side
        latents: Tensor = latents_BLC.transpose(1, 2).unflatten(2, (side, side))
        return latents

    @override
    def synthesise(self, latents: Tensor) -> Tensor:
        planes: Tensor = self.decoder(self.post_quant(latents.flatten(2).transpose(1, 2)))
        return planes


class VitVqganTokenizer(PublishedTokenizer):
    """ViT-VQGAN of enhancing-transformers, the tokenizer of SeiT; see the module's docstring.

    SeiT keeps the 391 of the 8,192 codes that ImageNet uses; ``restricted`` selects them.
    """

    name: ClassVar[str] = "vitvqgan"
    network_class: ClassVar[type[ImageNetwork]] = VitVqganNetwork
    lowest: ClassVar[float] = 0.0
    has_unit_codes: ClassVar[bool] = True
    published_resize: ClassVar[str] = "both sides, bicubic"

    @classmethod
    def from_checkpoint(cls, weights: StateDict, *, size: int | None = None) -> Self:
        """Build the tokenizer from a checkpoint of enhancing-transformers.

        Raises:
            UsageError: it is not such a checkpoint.
        """
        weights = weights.renamed(_canonical)
        network = VitVqganNetwork.of(
            weights.renamed(lambda name: None if name == CODEBOOK else name)
        )
        weights.shape(CODEBOOK, 2)
        return cls.assemble(weights[CODEBOOK], network, size=size)


_RENAMED = {
    "encoder.norm.": "encoder.transformer.norm.",
    "decoder.norm.": "decoder.transformer.norm.",
    "decoder.to_pixel.conv_out.": "decoder.to_pixel.1.",
}


def _canonical(key: str) -> str | None:
    """Return the name in the latest layout; None if it is not a weight of the tokenizer."""
    if key.startswith("loss."):
        return None
    for old, new in _RENAMED.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key
