"""`vqgan` and `llamagen`: convolutional VQ autoencoders with attention at the coarse levels.

One architecture (Esser et al., "Taming Transformers for High-Resolution Image Synthesis", 2021)
under three layouts of names: that of taming-transformers and latent-diffusion, which is kept here;
that of LlamaGen, whose codes are compared on the unit sphere; and that of diffusers' ``VQModel``.
Levels with attention, and number and width of blocks, are read from the weights.

Legend: B images, S image side, H W grid, E channels, L positions of a grid, C latent dim.
"""

import re
from typing import ClassVar, Self

from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from seit.errors import UsageError
from seit.tokenizers.published.base import ImageNetwork, PublishedTokenizer
from seit.tokenizers.published.checkpoints import StateDict

NORM_GROUPS = 32
_NORM_EPS = 1e-6
_MAX_LEVELS = 8
_MAX_BLOCKS = 16
CODEBOOK = "quantize.embedding.weight"
GUMBEL_CODEBOOK = "quantize.embed.weight"
GUMBEL_LOGITS = "quantize.proj.weight"


def group_norm(width: int, *, affine: bool = True) -> nn.GroupNorm:
    """Return the normalization of these networks: 32 groups, ε = 1e-6."""
    return nn.GroupNorm(NORM_GROUPS, width, eps=_NORM_EPS, affine=affine)


def checked_width(weights: StateDict, key: str) -> int:
    """Return the output channels of a convolution, a multiple of 32 (the groups).

    Raises:
        UsageError: they are not, or there is no such convolution.
    """
    width = weights.shape(key, 4)[0]
    if width % NORM_GROUPS:
        raise weights.refusal(f"{key} has {width} channels, no multiple of {NORM_GROUPS}")
    return width


def checked_count(weights: StateDict, prefix: str, most: int) -> int:
    """Count numbered parts, from one to ``most``.

    Raises:
        UsageError: there are none or more.
    """
    count = weights.count(prefix)
    if not 1 <= count <= most:
        raise weights.refusal(f"it has {count} {prefix}.N where 1 to {most} belong")
    return count


class ResidualBlock(nn.Module):
    """Norm, SiLU, 3×3 convolution, twice; adds the input, through 1×1 if the width changes."""

    def __init__(self, width_in: int, width_out: int, *, bias: bool = True) -> None:
        super().__init__()
        self.norm1 = group_norm(width_in)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1, bias=bias)
        self.norm2 = group_norm(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1, bias=bias)
        if width_in != width_out:
            self.nin_shortcut = nn.Conv2d(width_in, width_out, 1, bias=bias)

    @override
    def forward(self, x_BEHW: Tensor) -> Tensor:
        hidden = self.conv1(functional.silu(self.norm1(x_BEHW)))
        hidden = self.conv2(functional.silu(self.norm2(hidden)))
        shortcut = self.nin_shortcut(x_BEHW) if hasattr(self, "nin_shortcut") else x_BEHW
        out: Tensor = shortcut + hidden
        return out


class AttentionBlock(nn.Module):
    """Single-head self-attention over all positions of the grid, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = group_norm(width)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    @override
    def forward(self, x_BEHW: Tensor) -> Tensor:
        normed = self.norm(x_BEHW)
        q_BLE, k_BLE, v_BLE = (
            layer(normed).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        mixed_BLE = functional.scaled_dot_product_attention(q_BLE, k_BLE, v_BLE)
        out: Tensor = x_BEHW + self.proj_out(mixed_BLE.transpose(1, 2).reshape(x_BEHW.shape))
        return out


class Downsample(nn.Module):
    """3×3 convolution of stride 2, padded only at the bottom and on the right."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    @override
    def forward(self, x_BEHW: Tensor) -> Tensor:
        out: Tensor = self.conv(functional.pad(x_BEHW, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Nearest-neighbor upsampling by 2, then a 3×3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    @override
    def forward(self, x_BEHW: Tensor) -> Tensor:
        out: Tensor = self.conv(functional.interpolate(x_BEHW, scale_factor=2.0, mode="nearest"))
        return out


class Level(nn.Module):
    """Blocks at one resolution, and the step to the next one if there is any."""

    def __init__(self, weights: StateDict, prefix: str, width: int) -> None:
        super().__init__()
        count = checked_count(weights, f"{prefix}.block", _MAX_BLOCKS)
        num_attentions = weights.count(f"{prefix}.attn")
        if num_attentions not in (0, count):
            raise weights.refusal(f"{prefix} has {count} blocks and {num_attentions} attentions")
        self.block = nn.ModuleList()
        self.attn = nn.ModuleList()
        for index in range(count):
            out = checked_width(weights, f"{prefix}.block.{index}.conv1.weight")
            self.block.append(ResidualBlock(width, out))
            width = out
            if num_attentions:
                self.attn.append(AttentionBlock(width))
        self.width = width
        if weights.holds(f"{prefix}.downsample"):
            self.downsample = Downsample(width)
        if weights.holds(f"{prefix}.upsample"):
            self.upsample = Upsample(width)

    @override
    def forward(self, x_BEHW: Tensor) -> Tensor:
        for index, block in enumerate(self.block):
            x_BEHW = block(x_BEHW)
            if len(self.attn):
                x_BEHW = self.attn[index](x_BEHW)
        for name in ("downsample", "upsample"):
            if hasattr(self, name):
                x_BEHW = getattr(self, name)(x_BEHW)
        return x_BEHW


class Middle(nn.Module):
    """Two blocks at the coarsest resolution, with optional attention between them."""

    def __init__(self, weights: StateDict, prefix: str, width: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(width, width)
        if weights.holds(f"{prefix}.attn_1"):
            self.attn_1 = AttentionBlock(width)
        self.block_2 = ResidualBlock(width, width)

    @override
    def forward(self, x_BEHW: Tensor) -> Tensor:
        x_BEHW = self.block_1(x_BEHW)
        if hasattr(self, "attn_1"):
            x_BEHW = self.attn_1(x_BEHW)
        out: Tensor = self.block_2(x_BEHW)
        return out


class Encoder(nn.Module):
    """Encoder: planes (B, 3, S, S) → features (B, E, H, W)."""

    def __init__(self, weights: StateDict) -> None:
        super().__init__()
        width = checked_width(weights, "encoder.conv_in.weight")
        self.conv_in = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList()
        for index in range(checked_count(weights, "encoder.down", _MAX_LEVELS)):
            level = Level(weights, f"encoder.down.{index}", width)
            self.down.append(level)
            width = level.width
        self.mid = Middle(weights, "encoder.mid", width)
        self.norm_out = group_norm(width)
        self.width_out = weights.shape("encoder.conv_out.weight", 4)[0]
        self.conv_out = nn.Conv2d(width, self.width_out, 3, padding=1)

    @override
    def forward(self, planes: Tensor) -> Tensor:
        x_BEHW = self.conv_in(planes)
        for level in self.down:
            x_BEHW = level(x_BEHW)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(self.mid(x_BEHW))))
        return out


class Decoder(nn.Module):
    """Decoder: features (B, E, H, W) → planes (B, 3, S, S); ``up`` counts from the finest level."""

    def __init__(self, weights: StateDict) -> None:
        super().__init__()
        width = checked_width(weights, "decoder.conv_in.weight")
        self.width_in = weights.shape("decoder.conv_in.weight", 4)[1]
        self.conv_in = nn.Conv2d(self.width_in, width, 3, padding=1)
        self.mid = Middle(weights, "decoder.mid", width)
        levels: list[Level] = []
        for index in reversed(range(checked_count(weights, "decoder.up", _MAX_LEVELS))):
            levels.insert(0, Level(weights, f"decoder.up.{index}", width))
            width = levels[0].width
        self.up = nn.ModuleList(levels)
        self.norm_out = group_norm(width)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    @override
    def forward(self, features: Tensor) -> Tensor:
        x_BEHW = self.mid(self.conv_in(features))
        for level in reversed(self.up):
            x_BEHW = level(x_BEHW)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(x_BEHW)))
        return out


class VqganNetwork(ImageNetwork):
    """Autoencoder, and the map to logits of codes if it has one (Gumbel-softmax)."""

    def __init__(self, weights: StateDict) -> None:
        super().__init__(weights)
        self.encoder = Encoder(weights)
        self.decoder = Decoder(weights)
        halvings = [hasattr(level, "downsample") for level in self.encoder.down]
        doublings = [hasattr(level, "upsample") for level in self.decoder.up]
        if halvings[-1] or doublings[0] or sum(halvings) != sum(doublings):
            raise weights.refusal("its encoder and decoder change the resolution differently")
        self.patch = 1 << sum(halvings)
        self.dim = weights.shape("quant_conv.weight", 4)[0]
        code_dim = weights.shape("post_quant_conv.weight", 4)[1]
        self.quant_conv = nn.Conv2d(self.encoder.width_out, self.dim, 1)
        self.post_quant_conv = nn.Conv2d(code_dim, self.decoder.width_in, 1)
        if GUMBEL_LOGITS in weights:
            num_codes = weights.shape(GUMBEL_LOGITS, 4)[0]
            self.quantize = nn.ModuleDict({"proj": nn.Conv2d(self.dim, num_codes, 1)})
            self.dim = code_dim
        if self.dim != code_dim:
            raise weights.refusal(f"latents have {self.dim} dimensions and codes {code_dim}")

    @property
    def logits(self) -> nn.Conv2d | None:
        """1×1 convolution from latents to logits of codes, of a Gumbel-softmax quantizer."""
        layer = self.quantize["proj"] if hasattr(self, "quantize") else None
        assert layer is None or isinstance(layer, nn.Conv2d)
        return layer

    @override
    def analyse(self, planes: Tensor) -> Tensor:
        latents: Tensor = self.quant_conv(self.encoder(planes))
        return latents

    @override
    def synthesise(self, latents: Tensor) -> Tensor:
        planes: Tensor = self.decoder(self.post_quant_conv(latents))
        return planes


class VqganTokenizer(PublishedTokenizer):
    """VQGAN of taming-transformers, latent-diffusion or diffusers; see the module's docstring.

    A Gumbel-softmax quantizer takes the likeliest code, whereas its authors sample one.
    """

    name: ClassVar[str] = "vqgan"
    network_class: ClassVar[type[ImageNetwork]] = VqganNetwork
    published_resize: ClassVar[str] = "shorter side, bilinear, then the centre"

    @override
    def quantise(self, latents_NC: Tensor) -> Tensor:
        network = self.network
        assert isinstance(network, VqganNetwork)
        if network.logits is None:
            return super().quantise(latents_NC)
        logits: Tensor = network.logits(latents_NC[:, :, None, None])
        return logits.flatten(1).argmax(1)

    @override
    def _selected(self, numbers: Tensor) -> Self:
        network = self.network
        assert isinstance(network, VqganNetwork)
        if network.logits is not None:
            raise UsageError(f"this {self.name} has logits of all its codes; leave --remap out")
        return super()._selected(numbers)

    @classmethod
    def from_checkpoint(cls, weights: StateDict, *, size: int | None = None) -> Self:
        """Build the tokenizer from a checkpoint in one of the three layouts.

        Raises:
            UsageError: it is not such a checkpoint.
        """
        weights = in_taming_layout(weights)
        key = GUMBEL_CODEBOOK if GUMBEL_LOGITS in weights else CODEBOOK
        num_codes, _ = weights.shape(key, 2)
        if GUMBEL_LOGITS in weights and weights.shape(GUMBEL_LOGITS, 4)[0] != num_codes:
            raise weights.refusal(f"{GUMBEL_LOGITS} is not for {num_codes} codes")
        network = VqganNetwork.of(weights.renamed(lambda name: None if name == key else name))
        return cls.assemble(weights[key], network, size=size)


class LlamaGenTokenizer(VqganTokenizer):
    """LlamaGen's VQ-8 and VQ-16: the VQGAN architecture with 8-dimensional codes of unit length."""

    name: ClassVar[str] = "llamagen"
    has_unit_codes: ClassVar[bool] = True
    published_resize: ClassVar[str] = "shorter side, halved by box and then bicubic; the centre"


def in_taming_layout(weights: StateDict) -> StateDict:
    """Return the weights under taming's names, without losses, averages and counters."""
    if weights.holds("encoder.down_blocks"):
        weights = _from_diffusers(weights)
    elif weights.holds("encoder.conv_blocks"):
        num_levels = weights.count("decoder.conv_blocks")
        weights = weights.renamed(lambda key: _from_llamagen(key, num_levels))
    return weights.renamed(lambda key: None if _NO_WEIGHT.match(key) else key)


_NO_WEIGHT = re.compile(r"(?:loss|model_ema|quantize\.(?:codebook_used|used))(?:\.|$)|colorize$")
_MIDDLE = ("block_1", "attn_1", "block_2")


def _from_llamagen(key: str, num_levels: int) -> str:
    """Rename from LlamaGen, which counts the decoder's levels and middle parts differently."""
    half, _, rest = key.partition(".")
    if half not in ("encoder", "decoder"):
        return key
    match = re.fullmatch(r"conv_blocks\.(\d+)\.(res|attn|downsample|upsample)\.(.+)", rest)
    if match:
        level = int(match[1]) if half == "encoder" else num_levels - 1 - int(match[1])
        part = "block" if match[2] == "res" else match[2]
        return f"{half}.{'down' if half == 'encoder' else 'up'}.{level}.{part}.{match[3]}"
    match = re.fullmatch(r"mid\.([012])\.(.+)", rest)
    return f"{half}.mid.{_MIDDLE[int(match[1])]}.{match[2]}" if match else key


_DIFFUSERS_NAMES = (
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.group_norm\.", ".norm."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.resnets\.", ".block."),
    (r"\.attentions\.", ".attn."),
    (r"\.(down|up)samplers\.0\.", r".\1sample."),
    (r"\.mid_block\.block\.0\.", ".mid.block_1."),
    (r"\.mid_block\.block\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attn\.0\.", ".mid.attn_1."),
    (r"\.down_blocks\.", ".down."),
)


def _from_diffusers(weights: StateDict) -> StateDict:
    """Convert from diffusers: levels count from the coarsest, attention has linear layers."""
    num_levels = weights.count("decoder.up_blocks")

    def rename(key: str) -> str:
        for pattern, name in _DIFFUSERS_NAMES:
            key = re.sub(pattern, name, key)
        return re.sub(
            r"\.up_blocks\.(\d{1,3})\.",
            lambda match: f".up.{num_levels - 1 - int(match[1])}.",
            key,
        )

    renamed = weights.renamed(rename)
    linear = re.compile(r"\.(?:q|k|v|proj_out)\.weight$")
    return renamed.replaced(
        {
            key: x[:, :, None, None] if x.ndim == 2 and linear.search(key) else x
            for key, x in renamed.items()
        }
    )
