"""TokenAdapt: a network that flips, rotates, shears and crops token grids.

The tokens of a warped image are not the warped tokens of the image. TokenAdapt (SeiT++, arXiv
2312.10105, section 3.2) lifts a grid to a map of twice its sides in which warping is meaningful,
warps the map, and reads tokens from it: T(A(x)) ≈ g(A(f(T(x)))).

Legend: B batch, H W grid, h w warped grid, L = H · W, K codes, C codebook dim, D model dim.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from seit.augment import TokenWarper, warp
from seit.errors import DamagedError, UsageError
from seit.models.codebook import location_and_scale
from seit.shards import Store
from seit.tensors import read_card, write_tensors

_FORMAT = "seit-tokenadapt"
_VERSION = 1
_MAX_DIM = 8192
_MAX_HEADS = 256
_SHARPNESS = 8.0
"""Approximate difference of the initial logits of different codes."""
_GROUP_CELLS = 1 << 16
"""Cells to warp at a time without gradients, to bound the memory."""


class TokenAdapt(TokenWarper):
    """The networks f (lift) and g (read) on both sides of a warp.

    f is a linear map of embedded tokens to D, one transformer block and a transposed 2×2
    convolution to C channels; g a 2×2 convolution of stride 2 to D, one block and a linear map to
    K logits. Blocks are pre-norm, with tanh in an MLP four times as wide, and see fixed sine and
    cosine positions, so that f and g take grids of any size.

    Different from the paper: embedded tokens are first centered and divided by their RMS deviation,
    since codebooks differ in scale, and training starts from copying instead of from noise. The
    four linear maps start as a projection and its transpose, the blocks as identities and the head
    as a nearest-code search, so an untrained network reads off the interpolated embedding.

    Costs about 5.6 billion multiplications per sample at 32×32 tokens and the published width.

    Args:
        codebook: (K, C) floating point; a buffer that is not saved.
        dim: D, a multiple of 4 and of ``num_heads``.
        num_heads: heads of both blocks.
        interpolation: interpolation of the warp. Files of older networks do not contain it; these
            were trained with ``bilinear``.

    Raises:
        UsageError: the codebook is not (K, C), or sizes are invalid.
    """

    codes: Tensor
    mean: Tensor

    def __init__(
        self,
        codebook: Tensor,
        *,
        dim: int = 384,
        num_heads: int = 6,
        interpolation: Literal["bicubic", "bilinear"] = "bicubic",
    ) -> None:
        super().__init__()
        if codebook.ndim != 2:
            raise UsageError(
                f"the codebook is {tuple(codebook.shape)}; expected (K, C): pass one level of it"
            )
        if not 4 <= dim <= _MAX_DIM or dim % 4:
            raise UsageError(
                f"dim is {dim}; expected a multiple of 4, 4 to {_MAX_DIM}: 384 is the paper's"
            )
        if not 1 <= num_heads <= _MAX_HEADS or dim % num_heads:
            raise UsageError(
                f"num_heads is {num_heads} at dim {dim}; expected a divisor of it, 1 to "
                f"{_MAX_HEADS}: 6 is the paper's"
            )
        K, C = codebook.shape
        self.dim, self.num_heads = dim, num_heads
        self.interpolation: Literal["bicubic", "bilinear"] = interpolation
        self.take_codebook(codebook)
        self.lift = nn.Linear(C, dim)
        self.lift_block = _block(dim, num_heads)
        self.expand = nn.ConvTranspose2d(dim, C, 2, 2)
        self.reduce = nn.Conv2d(C, dim, 2, 2)
        self.read_block = _block(dim, num_heads)
        self.head = nn.Linear(dim, K)
        if not codebook.is_meta:
            self._start_from_copying()

    def take_codebook(self, codebook: Tensor) -> None:
        """Set the codes (K, C) of the tokens."""
        codes = codebook.detach().to(torch.float32)
        mean, self.unit = location_and_scale(codes)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("codes", (codes - mean) / self.unit, persistent=False)

    @override
    def forward(self, tokens: Tensor, warps: Tensor, size: tuple[int, int]) -> Tensor:
        """Return logits (B, K, h, w) of the warped grids; arguments as in ``warp_tokens``."""
        return self._logits(self._warped(F.embedding(tokens, self.codes), warps, size))

    @torch.no_grad()
    @override
    def warp_vectors(self, x: Tensor, warps: Tensor, size: tuple[int, int]) -> Tensor:
        vectors = (x.permute(0, 2, 3, 1) - self.mean) / self.unit
        group = _group(x[0, 0].numel(), size[0] * size[1])
        parts = zip(vectors.split(group), warps.split(group), strict=True)
        return torch.cat([self._warped(*part, size) for part in parts])

    @torch.no_grad()
    @override
    def read_tokens(self, maps: Tensor) -> Tensor:
        group = _group(maps[0, 0].numel() // 4)
        return torch.cat([self._logits(part).argmax(dim=1) for part in maps.split(group)])

    @torch.no_grad()
    @override
    def warp_tokens(self, tokens: Tensor, warps: Tensor, size: tuple[int, int]) -> Tensor:
        group = _group(tokens[0].numel(), size[0] * size[1])
        parts = zip(tokens.split(group), warps.split(group), strict=True)
        return torch.cat([self(*part, size).argmax(dim=1) for part in parts])

    def _warped(self, vectors: Tensor, warps: Tensor, size: tuple[int, int]) -> Tensor:
        """Lift and warp: standardized vectors (B, H, W, C) → maps (B, C, 2h, 2w)."""
        lifted = self._attend(self.lift_block, self.lift(vectors))
        maps: Tensor = self.expand(lifted.permute(0, 3, 1, 2))
        return warp(maps, warps, (2 * size[0], 2 * size[1]), mode=self.interpolation)

    def _logits(self, maps: Tensor) -> Tensor:
        """Read maps (B, C, 2h, 2w): logits (B, K, h, w)."""
        read = self._attend(self.read_block, self.reduce(maps).permute(0, 2, 3, 1))
        logits: Tensor = self.head(read)
        return logits.permute(0, 3, 1, 2)

    def _attend(self, block: nn.Module, x: Tensor) -> Tensor:
        """Apply one block to the cells of (B, H, W, D)."""
        H, W = x.shape[1:3]
        places = build_sincos2d_pos_embed([H, W], self.dim, device=x.device).to(x.dtype)
        attended: Tensor = block(x.flatten(1, 2) + places) - places
        return attended.view_as(x)

    @torch.no_grad()
    def _start_from_copying(self) -> None:
        projection = nn.init.orthogonal_(self.lift.weight)
        self.expand.weight.copy_(projection[..., None, None].expand_as(self.expand.weight))
        self.reduce.weight.copy_(projection[..., None, None].expand_as(self.reduce.weight) / 4)
        # Logits −τ/2 · |code − x|² up to a constant.
        sharpness = _SHARPNESS / self.codes.shape[1]
        self.head.weight.copy_(sharpness * self.codes @ projection.T)
        self.head.bias.copy_(-sharpness / 2 * self.codes.square().sum(dim=1))
        for layer in (self.lift, self.expand, self.reduce):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        for name, parameter in self.named_parameters():
            if name.endswith(("proj.weight", "fc2.weight")):
                nn.init.zeros_(parameter)


def save_tokenadapt(network: TokenAdapt, path: Path, *, fingerprint: str) -> None:
    """Write a network to one safetensors file.

    Args:
        network: the network.
        path: the file; an existing one is replaced.
        fingerprint: fingerprint of the tokenizer of its training tokens.

    Raises:
        SeitError: the file cannot be written.
    """
    card = {
        "format": _FORMAT,
        "version": _VERSION,
        "fingerprint": fingerprint,
        "dim": network.dim,
        "num_heads": network.num_heads,
        "interpolation": network.interpolation,
    }
    write_tensors(path, network.state_dict(), card=card)


def load_tokenadapt(path: str | Path, store: Store) -> TokenAdapt:
    """Load a network for the tokens of a store, on the CPU and without gradients.

    Raises:
        UsageError: the file does not exist, or was trained for another tokenizer.
        DamagedError: the file is corrupt.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"no TokenAdapt file at {path}; correct augment.token_adapt or train one")
    card, tensors = _read(path)
    found, expected = card["fingerprint"], store.card.tokenizer.fingerprint
    if found != expected:
        raise UsageError(
            f"{path} was trained for the tokenizer {found[:12]}…, but {store.folder} was made by "
            f"{expected[:12]}…; train one on this store"
        )
    codebook = torch.from_numpy(store.codebook)
    try:
        with torch.device("meta"):
            network = TokenAdapt(
                codebook.to("meta"),
                dim=card["dim"],
                num_heads=card["num_heads"],
                interpolation=card.get("interpolation", "bilinear"),
            )
    except UsageError as error:
        raise DamagedError(f"{path} names impossible sizes ({error})") from error
    wanted = {key: (value.shape, value.dtype) for key, value in network.state_dict().items()}
    if {key: (value.shape, value.dtype) for key, value in tensors.items()} != wanted:
        raise DamagedError(
            f"{path} holds other tensors than a TokenAdapt network of dim {card['dim']} for a "
            f"codebook of {tuple(codebook.shape)} has; restore it from a copy or train it again"
        )
    network.load_state_dict(tensors, assign=True)
    network.take_codebook(codebook)
    return network.eval().requires_grad_(False)


def _read(path: Path) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """Read the card and the tensors of a file."""
    fault, advice = "no intact TokenAdapt file", "restore it from a copy or train it again"
    card, tensors = read_card(path, fault=fault, advice=advice, finite=True)
    try:
        kinds = {"format": str, "version": int, "fingerprint": str, "dim": int, "num_heads": int}
        sound = all(type(card[key]) is kind for key, kind in kinds.items())
        sound &= card.get("interpolation", "bilinear") in ("bicubic", "bilinear")
    except KeyError as error:
        raise DamagedError(f"{path} is {fault} (its card lacks {error}); {advice}") from error
    if not sound or card["format"] != _FORMAT:
        raise DamagedError(f"{path} is no TokenAdapt file; pass one that train_tokenadapt wrote")
    if card["version"] != _VERSION:
        raise UsageError(
            f"{path} is version {card['version']}; this version of seit reads {_VERSION}; upgrade "
            "seit"
        )
    return card, tensors


def _group(*cells: int) -> int:
    """Return the number of samples of ``cells`` cells processed at a time without gradients."""
    return max(1, _GROUP_CELLS // max(cells))


def _block(dim: int, num_heads: int) -> Block:
    return Block(dim, num_heads, mlp_ratio=4.0, qkv_bias=True, act_layer=nn.Tanh)
