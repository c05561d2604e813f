"""Network of the learned tokenizers: planes of values ↔ a grid of latents.

Each half is a linear map of single patches plus a small ConvNet on the grid (ConvNeXt blocks, Liu
et al. 2022, with 5×5 depthwise kernels) that adds context from neighboring patches. The linear maps
are initialized to the principal components of patches and the ConvNets to zero, so that an
untrained network is the patch tokenizer.

Legend: B batch, P planes (colors), Y X their height and width, H W grid, D values of a patch, C
latent dim, E F channels.
"""

from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

_MAX_CHANNELS = 4096
_MAX_BLOCKS = 64
_LAYER_SCALE = 0.1


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Shape of an autoencoder.

    Attributes:
        planes: 3 for the colors of an image, 1 for a spectrogram.
        patch: height and width of a patch, both even.
        dim: latent dim C.
        encoder_width, encoder_blocks: channels and blocks of the encoder, on the grid.
        decoder_width, decoder_blocks: channels and blocks of the decoder, on the grid.
        fine_width, fine_blocks: channels and blocks of its last stage, on twice the grid.
    """

    planes: int = 3
    patch: tuple[int, int] = (8, 8)
    dim: int = 16
    encoder_width: int = 128
    encoder_blocks: int = 3
    decoder_width: int = 160
    decoder_blocks: int = 4
    fine_width: int = 64
    fine_blocks: int = 2

    def __post_init__(self) -> None:
        widths = (self.encoder_width, self.decoder_width, self.fine_width)
        sizes = (self.planes, *self.patch, self.dim, *widths)
        blocks = (self.encoder_blocks, self.decoder_blocks, self.fine_blocks)
        whole = all(type(size) is int for size in (*sizes, *blocks))
        if not whole or not all(1 <= size <= _MAX_CHANNELS for size in sizes):
            raise ValueError(f"sizes {sizes}; they go from 1 to {_MAX_CHANNELS}")
        if not all(0 <= count <= _MAX_BLOCKS for count in blocks):
            raise ValueError(f"{blocks} blocks; a stage has 0 to {_MAX_BLOCKS}")
        if any(side % 2 for side in self.patch):
            raise ValueError(f"patches of {self.patch}; their sides are even")

    @property
    def patch_values(self) -> int:
        """D, the number of values of a patch."""
        return self.planes * self.patch[0] * self.patch[1]

    def to_json(self) -> dict[str, Any]:
        """Return the values that :meth:`from_json` reads."""
        return {**asdict(self), "patch": list(self.patch)}

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """Read the values of :meth:`to_json`.

        Raises:
            ValueError, TypeError, KeyError: they are invalid.
        """
        height, width = values["patch"]
        return cls(**{**values, "patch": (height, width)})


def fold(values: Tensor, height: int, width: int) -> Tensor:
    """Fold (B, P·height·width, H, W) into (B, P, H·height, W·width)."""
    batch, channels, rows, columns = values.shape
    planes = channels // (height * width)
    return (
        values.reshape(batch, planes, height, width, rows, columns)
        .permute(0, 1, 4, 2, 5, 3)
        .reshape(batch, planes, rows * height, columns * width)
    )


def unfold(planes: Tensor, height: int, width: int) -> Tensor:
    """Unfold (B, P, H·height, W·width) into (B, P·height·width, H, W)."""
    batch, channels, rows, columns = planes.shape
    rows, columns = rows // height, columns // width
    return (
        planes.reshape(batch, channels, rows, height, columns, width)
        .permute(0, 1, 3, 5, 2, 4)
        .reshape(batch, channels * height * width, rows, columns)
    )


class Block(nn.Module):
    """ConvNeXt block: depthwise 5×5, layer norm, two linear layers, scaled residual."""

    def __init__(self, width: int, *, expansion: int = 3) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, expansion * width)
        self.project = nn.Linear(expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), _LAYER_SCALE))

    @override
    def forward(self, x_BEHW: Tensor) -> Tensor:
        x_BHWE = self.norm(self.spatial(x_BEHW).permute(0, 2, 3, 1))
        x_BHWE = self.project(functional.gelu(self.expand(x_BHWE)))
        out: Tensor = x_BEHW + (self.scale * x_BHWE).permute(0, 3, 1, 2)
        return out


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, E, H, W)."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        normed: Tensor = super().forward(input.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


def _blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Block(width) for _ in range(count)), ChannelNorm(width))


class Encoder(nn.Module):
    """Encoder: planes (B, P, Y, X), about unit variance, → latents (B, C, H, W)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.patch = config.patch
        width = config.encoder_width
        self.linear = nn.Conv2d(config.patch_values, config.dim, 1)
        self.stem = nn.Conv2d(config.patch_values, width, 1)
        self.blocks = _blocks(width, config.encoder_blocks)
        self.head = nn.Conv2d(width, config.dim, 1)
        nn.init.zeros_(self.head.weight)

    @override
    def forward(self, planes: Tensor) -> Tensor:
        patches_BDHW = unfold(planes, *self.patch).contiguous(memory_format=torch.channels_last)
        latents: Tensor = self.linear(patches_BDHW)
        added: Tensor = self.head(self.blocks(self.stem(patches_BDHW)))
        return latents + added


class Decoder(nn.Module):
    """Decoder: quantized latents (B, C, H, W) → planes (B, P, Y, X)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        height, width = config.patch
        self.patch = config.patch
        self.linear = nn.Conv2d(config.dim, config.patch_values, 1)
        self.stem = nn.Conv2d(config.dim, config.decoder_width, 3, padding=1)
        self.blocks = _blocks(config.decoder_width, config.decoder_blocks)
        self.widen = nn.Conv2d(config.decoder_width, 4 * config.fine_width, 1)
        self.fine = _blocks(config.fine_width, config.fine_blocks)
        self.head = nn.Conv2d(
            config.fine_width, config.planes * (height // 2) * (width // 2), 3, padding=1
        )
        nn.init.zeros_(self.head.weight)

    @override
    def forward(self, latents: Tensor) -> Tensor:
        latents = latents.contiguous(memory_format=torch.channels_last)
        height, width = self.patch
        coarse = fold(self.linear(latents), height, width)
        features = fold(self.widen(self.blocks(self.stem(latents))), 2, 2)
        features = features.contiguous(memory_format=torch.channels_last)
        fine: Tensor = self.head(self.fine(features))
        return coarse + fold(fine, height // 2, width // 2)


class Autoencoder(nn.Module):
    """:class:`Encoder` and :class:`Decoder`, without the quantizer between them."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    @torch.no_grad()
    def start_from_patches(self, patches_ND: Tensor, *, whitening: float = 0.25) -> Tensor:
        """Set the linear maps to principal components of patches; returns latents (N, C).

        Component i is scaled to the variance λ_i^(1 − whitening), all to unit mean square.

        Args:
            patches_ND: patches, with values ordered as by :func:`unfold`.
            whitening: 0–1.
        """
        mean_D = patches_ND.mean(0)
        centred_ND = patches_ND - mean_D
        covariance_DD = (centred_ND.T @ centred_ND).double() / len(centred_ND)
        values_D, vectors_DD = torch.linalg.eigh(covariance_DD)
        dim = self.config.dim
        values_C, vectors_DC = values_D.flip(0)[:dim].clamp(min=0), vectors_DD.flip(1)[:, :dim]
        scale_C = (values_C + 1e-4 * values_C[0] + 1e-9).pow(-whitening / 2)
        unit = (scale_C.square() * values_C).mean().sqrt().clamp(min=1e-6)
        analysis_DC = (vectors_DC * scale_C / unit).float()
        synthesis_CD = (vectors_DC / scale_C * unit).T.float()
        encoder, decoder = self.encoder.linear, self.decoder.linear
        assert encoder.bias is not None
        assert decoder.bias is not None
        encoder.weight.copy_(analysis_DC.T[:, :, None, None])
        encoder.bias.copy_(-mean_D @ analysis_DC)
        decoder.weight.copy_(synthesis_CD.T[:, :, None, None])
        decoder.bias.copy_(mean_D)
        latents_NC: Tensor = centred_ND @ analysis_DC
        return latents_NC
