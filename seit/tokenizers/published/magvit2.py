"""`open-magvit2`: a convolutional autoencoder whose codes are the signs of its latents.

Luo et al., "Open-MAGVIT2" (2024), after "Language Model Beats Diffusion" (2023), which proposes
lookup-free quantization: id = Σ 2^c over the dimensions c with a positive latent. Checkpoints hold
the weights twice; the averages, whose names lack their dots, are the ones its authors evaluate.

Legend: B images, S image side, H W grid, E channels, C latent dim, N latents.
"""

from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from seit.errors import UsageError
from seit.tokenizers.learned.autoencoder import fold
from seit.tokenizers.published.base import ImageNetwork, PublishedTokenizer
from seit.tokenizers.published.checkpoints import StateDict
from seit.tokenizers.published.vqgan import (
    ResidualBlock,
    checked_count,
    checked_width,
    group_norm,
)

AVERAGES = "model_ema"
_STYLE_EPS = 1e-6
_MAX_LEVELS = 8
_MAX_BLOCKS = 16
_MAX_DIM = 20


class StyledNorm(nn.Module):
    """Group norm whose scale and shift come from the spread and mean of the latents."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.gn = group_norm(width, affine=False)
        self.gamma = nn.Linear(dim, width)
        self.beta = nn.Linear(dim, width)

    @override
    def forward(self, x_BEHW: Tensor, latents: Tensor) -> Tensor:
        places = latents.flatten(2)
        scale_BE = self.gamma((places.var(dim=2) + _STYLE_EPS).sqrt())
        shift_BE = self.beta(places.mean(dim=2))
        out: Tensor = scale_BE[..., None, None] * self.gn(x_BEHW) + shift_BE[..., None, None]
        return out


class Upsample(nn.Module):
    """3×3 convolution to four times the channels, which become 2×2 positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, 4 * width, 3, padding=1)

    @override
    def forward(self, x_BEHW: Tensor) -> Tensor:
        # Channels are ordered by position here, and by plane for `fold`.
        values = self.conv1(x_BEHW).unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2)
        return fold(values, 2, 2)


def _blocks(weights: StateDict, prefix: str, width: int) -> tuple[nn.ModuleList, int]:
    blocks = nn.ModuleList()
    for index in range(checked_count(weights, prefix, _MAX_BLOCKS)):
        out = checked_width(weights, f"{prefix}.{index}.conv1.weight")
        blocks.append(ResidualBlock(width, out, bias=False))
        width = out
    return blocks, width


class Level(nn.Module):
    """Blocks at one resolution, and the step to the next one if there is any."""

    def __init__(self, weights: StateDict, prefix: str, width: int) -> None:
        super().__init__()
        self.block, self.width = _blocks(weights, f"{prefix}.block", width)
        if weights.holds(f"{prefix}.downsample"):
            self.downsample = nn.Conv2d(self.width, self.width, 3, stride=2, padding=1)
        if weights.holds(f"{prefix}.upsample"):
            self.upsample = Upsample(self.width)

    @override
    def forward(self, x_BEHW: Tensor) -> Tensor:
        for block in self.block:
            x_BEHW = block(x_BEHW)
        for name in ("downsample", "upsample"):
            if hasattr(self, name):
                x_BEHW = getattr(self, name)(x_BEHW)
        return x_BEHW


class Encoder(nn.Module):
    """Encoder: planes (B, 3, S, S) → latents (B, C, H, W)."""

    def __init__(self, weights: StateDict) -> None:
        super().__init__()
        width = checked_width(weights, "encoder.conv_in.weight")
        self.conv_in = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.down = nn.ModuleList()
        for index in range(checked_count(weights, "encoder.down", _MAX_LEVELS)):
            level = Level(weights, f"encoder.down.{index}", width)
            self.down.append(level)
            width = level.width
        self.mid_block, width = _blocks(weights, "encoder.mid_block", width)
        self.norm_out = group_norm(width)
        self.dim = weights.shape("encoder.conv_out.weight", 4)[0]
        self.conv_out = nn.Conv2d(width, self.dim, 1)

    @override
    def forward(self, planes: Tensor) -> Tensor:
        x_BEHW = self.conv_in(planes)
        for module in (*self.down, *self.mid_block):
            x_BEHW = module(x_BEHW)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(x_BEHW)))
        return out


class Decoder(nn.Module):
    """Decoder: signs (B, C, H, W) → planes (B, 3, S, S)."""

    def __init__(self, weights: StateDict, dim: int) -> None:
        super().__init__()
        width = checked_width(weights, "decoder.conv_in.weight")
        self.conv_in = nn.Conv2d(dim, width, 3, padding=1)
        self.mid_block, width = _blocks(weights, "decoder.mid_block", width)
        levels: list[Level] = []
        norms: list[StyledNorm] = []
        for index in reversed(range(checked_count(weights, "decoder.up", _MAX_LEVELS))):
            norms.insert(0, StyledNorm(dim, width))
            levels.insert(0, Level(weights, f"decoder.up.{index}", width))
            width = levels[0].width
        self.up = nn.ModuleList(levels)
        self.adaptive = nn.ModuleList(norms)
        self.norm_out = group_norm(width)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    @override
    def forward(self, latents: Tensor) -> Tensor:
        x_BEHW = self.conv_in(latents)
        for block in self.mid_block:
            x_BEHW = block(x_BEHW)
        for norm, level in zip(reversed(self.adaptive), reversed(self.up), strict=True):
            x_BEHW = level(norm(x_BEHW, latents))
        out: Tensor = self.conv_out(functional.silu(self.norm_out(x_BEHW)))
        return out


class Magvit2Network(ImageNetwork):
    """Autoencoder with signs between its halves."""

    def __init__(self, weights: StateDict) -> None:
        super().__init__(weights)
        self.encoder = Encoder(weights)
        self.dim = self.encoder.dim
        if not 1 <= self.dim <= _MAX_DIM:
            raise weights.refusal(f"it has 2^{self.dim} codes; at most 2^{_MAX_DIM} can be stored")
        self.decoder = Decoder(weights, self.dim)
        halvings = [hasattr(level, "downsample") for level in self.encoder.down]
        doublings = [hasattr(level, "upsample") for level in self.decoder.up]
        if sum(halvings) != sum(doublings):
            raise weights.refusal("its encoder and decoder change the resolution differently")
        self.patch = 1 << sum(halvings)


class Magvit2Tokenizer(PublishedTokenizer):
    """Open-MAGVIT2's lookup-free tokenizer; the codes are all vectors of ±1."""

    name: ClassVar[str] = "open-magvit2"
    network_class: ClassVar[type[ImageNetwork]] = Magvit2Network
    published_resize: ClassVar[str] = "shorter side, then the centre"

    @override
    def quantise(self, latents_NC: Tensor) -> Tensor:
        places_C = torch.arange(latents_NC.shape[1], device=latents_NC.device)
        return ((latents_NC > 0).long() << places_C).sum(1)

    @override
    def _selected(self, numbers: Tensor) -> Self:
        raise UsageError(f"the codes of {self.name} are signs, not a table; leave --remap out")

    @classmethod
    def from_checkpoint(cls, weights: StateDict, *, size: int | None = None) -> Self:
        """Build the tokenizer from a checkpoint, with its averaged weights if it has any.

        Raises:
            UsageError: it is not such a checkpoint.
        """
        network = Magvit2Network.of(averaged(weights))
        return cls.assemble(all_signs(network.dim), network, size=size)


def averaged(weights: StateDict) -> StateDict:
    """Return encoder and decoder, each weight replaced by its average if there is one."""
    plain = weights.renamed(lambda key: key if key.startswith(("encoder.", "decoder.")) else None)
    average_of = {f"{AVERAGES}.{key.replace('.', '')}": key for key in plain}
    if len(average_of) != len(plain):
        raise weights.refusal("two of its names differ by dots alone")
    averages = {key: weights[name] for name, key in average_of.items() if name in weights}
    if averages and len(averages) != len(plain):
        lost = next(key for key in plain if key not in averages)
        raise weights.refusal(f"it has averages of some weights, but none of {lost}")
    return plain.replaced({**plain, **averages})


def all_signs(dim: int) -> Tensor:
    """Return all vectors of ±1, float32 (2^C, C); bit c of a number is 1 if value c is positive."""
    numbers_K1 = torch.arange(1 << dim)[:, None]
    return ((numbers_K1 >> torch.arange(dim)) & 1).float() * 2 - 1
