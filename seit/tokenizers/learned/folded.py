"""The encoder of :mod:`seit.tokenizers.learned.autoencoder` as few matmuls, for tokenizing.

The scaling of inputs, both maps of single patches, the affine parts of layer norms and the scales
of residuals are folded into the weights of the next or previous linear layer, and one memory
layout is kept from planes to latents. The function is the same up to rounding, and faster on a CPU.

Legend: B inputs, Y X height and width, P planes, H W grid, D values of a patch, E channels, F those
within a block, C latent dim, N = B·H·W.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from seit.tokenizers.learned.autoencoder import Block, ChannelNorm, Encoder


class _FoldedBlock:
    """:class:`Block` for (B, H, W, E)."""

    def __init__(self, block: Block) -> None:
        self._spatial = block.spatial
        expand_FE, expand_F = _after_norm(
            block.norm, block.expand.weight.double(), block.expand.bias.double()
        )
        self._expand_FE, self._expand_F = expand_FE.float(), expand_F.float()
        scale_E = block.scale.double()
        self._project_EF = (scale_E[:, None] * block.project.weight.double()).float()
        self._project_E = (scale_E * block.project.bias.double()).float()

    def __call__(self, x_BHWE: Tensor) -> Tensor:
        width = x_BHWE.shape[-1]
        mixed_BEHW = self._spatial(x_BHWE.permute(0, 3, 1, 2))
        mixed_NE = mixed_BEHW.permute(0, 2, 3, 1).reshape(-1, width)
        inner_NF = functional.linear(_norm(mixed_NE), self._expand_FE, self._expand_F)
        added_NE = functional.linear(functional.gelu(inner_NF), self._project_EF, self._project_E)
        return x_BHWE + added_NE.view(x_BHWE.shape)


class FoldedEncoder:
    """Values (B, Y, X, P) → latents float32 (B, H, W, C), equal to those of :class:`Encoder`."""

    def __init__(self, encoder: Encoder, *, divisor: float, offset: float) -> None:
        """Copy the weights of an encoder of ``values / divisor + offset``."""
        self._patch = encoder.patch
        self._dim = encoder.linear.out_channels
        weight_OD, bias_O = _joined(encoder.linear, encoder.stem)
        self._patches_OD = (weight_OD / divisor).float()
        self._patches_O = (bias_O + offset * weight_OD.sum(1)).float()
        *blocks, norm = encoder.blocks
        assert isinstance(norm, ChannelNorm)
        self._blocks = [_FoldedBlock(block) for block in blocks if isinstance(block, Block)]
        head_CE, head_C = _after_norm(norm, *_double(encoder.head))
        self._head_CE, self._head_C = head_CE.float(), head_C.float()

    def __call__(self, values: Tensor) -> Tensor:
        """Encode values on the encoder's device."""
        batch, height, width, planes = values.shape
        high, wide = self._patch
        grid = batch, height // high, width // wide
        patches_ND = (
            values.reshape(batch, grid[1], high, grid[2], wide, planes)
            .permute(0, 1, 3, 5, 2, 4)
            .reshape(-1, planes * high * wide)
        )
        both_NO = functional.linear(patches_ND.float(), self._patches_OD, self._patches_O)
        x_BHWE = both_NO[:, self._dim :].reshape(*grid, -1)
        for block in self._blocks:
            x_BHWE = block(x_BHWE)
        x_NE = _norm(x_BHWE.flatten(0, 2))
        added_NC = functional.linear(x_NE, self._head_CE, self._head_C)
        latents_NC = both_NO[:, : self._dim] + added_NC
        return latents_NC.view(*grid, self._dim)


def _norm(x_NE: Tensor) -> Tensor:
    return functional.layer_norm(x_NE, x_NE.shape[1:])


def _double(layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Return weight (out, in) and bias (out,) of a 1×1 convolution."""
    assert layer.bias is not None
    return layer.weight.detach().double().flatten(1), layer.bias.detach().double()


def _joined(first: nn.Conv2d, second: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Join two 1×1 convolutions of one input into one."""
    parts = zip(_double(first), _double(second), strict=True)
    weight, bias = (torch.cat(part) for part in parts)
    return weight, bias


def _after_norm(norm: nn.LayerNorm, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Fold the affine part of a norm into the linear layer (out, in) after it."""
    return weight * norm.weight.double(), bias + weight @ norm.bias.double()
