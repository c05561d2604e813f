"""Built-in tokenizers as networks of exportable operations: images or waveforms → ids.

They compute the same as the tokenizers, which are optimized for speed with chunks, folded weights
and NumPy's search. The order of additions differs, so codes that tie up to rounding may differ.

Legend: B batch, S image side, T samples, M bands, F frames, P planes, H W grid of one level, D
values of a patch, C codebook dim, K codes, L levels, N = B·H·W.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from seit.errors import UsageError
from seit.tokenizers import (
    FLOOR_DB,
    NUM_VALUES,
    PLANE_RANGE,
    RANGE_DB,
    Autoencoder,
    Bound,
    ConvTokenizer,
    DMelTokenizer,
    MelConfig,
    MelConvTokenizer,
    MelTokenizer,
    NetworkConfig,
    PatchTokenizer,
    Tokenizer,
    mel_filters,
    to_planes,
    unfold,
)


def make_encoder(tokenizer: Tokenizer) -> nn.Module:
    """Return a built-in tokenizer as a network: its inputs (B, …) → ids int64 (B, L·H, W).

    Raises:
        UsageError: the tokenizer is not built-in.
    """
    if isinstance(tokenizer, PatchTokenizer):
        cut: nn.Module = ImagePatches(tokenizer.patch_size)
        return LinearEncoder(cut, tokenizer.codebook, tokenizer.tensors(), divisor=255)
    if isinstance(tokenizer, ConvTokenizer):
        return LearnedEncoder(ImagePlanes(), tokenizer)
    if isinstance(tokenizer, MelTokenizer):
        config = tokenizer.front_end.config
        cut = nn.Sequential(MelPlanes(config, tokenizer.tensors()), PlanePatches(config.patch))
        return LinearEncoder(cut, tokenizer.codebook, tokenizer.tensors())
    if isinstance(tokenizer, MelConvTokenizer):
        planes = MelPlanes(tokenizer.front_end.config, tokenizer.tensors(), divisor=PLANE_RANGE)
        return LearnedEncoder(planes, tokenizer)
    if isinstance(tokenizer, DMelTokenizer):
        return LoudnessEncoder(tokenizer.front_end.config)
    raise UsageError(
        f"the published tokenizer {tokenizer.name!r} is not exported; tokenize with seit, and "
        "export the classifier of tokens alone"
    )


class ImagePatches(nn.Module):
    """Images uint8 (B, S, S, 3) → patches float32 (B, H, W, D)."""

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size

    @override
    def forward(self, images: Tensor) -> Tensor:
        side = self.patch_size
        rows, columns = images.shape[1] // side, images.shape[2] // side
        patches = images.reshape(-1, rows, side, columns, side, 3).permute(0, 1, 3, 2, 4, 5)
        return patches.reshape(-1, rows, columns, side * side * 3).float()


class ImagePlanes(nn.Module):
    """Images uint8 (B, S, S, 3) → planes float32 (B, 3, S, S), −1…1."""

    @override
    def forward(self, images: Tensor) -> Tensor:
        return to_planes(images)


class PlanePatches(nn.Module):
    """Planes (B, P, …) → patches (B, H, W, D)."""

    def __init__(self, patch: tuple[int, int]) -> None:
        super().__init__()
        self.patch = patch

    @override
    def forward(self, planes: Tensor) -> Tensor:
        return unfold(planes, *self.patch).permute(0, 2, 3, 1)


class MelPlanes(nn.Module):
    """Waveforms float32 (B, T) → planes (B, 1, M, F): :class:`seit.tokenizers.MelFrontEnd`.

    Returns levels in dB if ``tensors`` lacks ``band_mean`` and ``band_deviation``.
    """

    taper: Tensor
    filters: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(
        self, config: MelConfig, tensors: Mapping[str, Tensor], *, divisor: float = 1
    ) -> None:
        super().__init__()
        self.config = config
        before = (config.fft - config.taper) // 2
        hann = torch.hann_window(config.taper, dtype=torch.float64)
        taper = functional.pad(hann, (before, config.fft - config.taper - before))
        filters = mel_filters(config.sample_rate, fft=config.fft, bands=config.bands)
        mean = tensors.get("band_mean", torch.zeros(config.bands))
        deviation = tensors.get("band_deviation", torch.ones(config.bands))
        self.register_buffer("taper", taper.float())
        self.register_buffer("filters", torch.from_numpy(filters.T.copy()).float())
        self.register_buffer("mean", mean[:, None])
        self.register_buffer("deviation", divisor * deviation[:, None])

    @override
    def forward(self, waves: Tensor) -> Tensor:
        config = self.config
        half = config.fft // 2
        behind = config.hop * config.frames - config.window + half
        frames = functional.pad(waves, (half, behind)).unfold(-1, config.fft, config.hop)
        spectra = torch.fft.rfft(frames[..., : config.frames, :] * self.taper)
        power = spectra.real.square() + spectra.imag.square()
        levels = 10 * (power @ self.filters).clamp(min=10 ** (FLOOR_DB / 10)).log10().mT
        planes: Tensor = ((levels - self.mean) / self.deviation)[:, None]
        return planes


class NearestCodes(nn.Module):
    """Points (B, H, W, C) → grids (B, L·H, W): the nearest code, then those of the residuals.

    Allocates the distances of all points to all codes: 4·N·K bytes.
    """

    codes: Tensor
    half_norms: Tensor

    def __init__(self, codebook: Tensor) -> None:
        super().__init__()
        codes_LKC = codebook.reshape(-1, *codebook.shape[-2:])
        self.register_buffer("codes", codes_LKC)
        self.register_buffer("half_norms", codes_LKC.square().sum(2) / 2)

    @override
    def forward(self, points_BHWC: Tensor) -> Tensor:
        rows, columns, dim = points_BHWC.shape[1:]
        rest_NC = points_BHWC.reshape(-1, dim)
        ids = []
        for codes_KC, half_norms_K in zip(self.codes, self.half_norms, strict=True):
            scores_NK = torch.addmm(half_norms_K, rest_NC, codes_KC.T, alpha=-1)
            nearest_N = scores_NK.argmin(1)
            ids.append(nearest_N.view(-1, rows, columns))
            rest_NC = rest_NC - codes_KC[nearest_N]
        return torch.cat(ids, 1)


class LinearEncoder(nn.Module):
    """Principal components of patches → ids: `patch-pca-vq`, `mel-vq` and `mel-rvq`."""

    analysis: Tensor
    offset: Tensor

    def __init__(
        self,
        cut: nn.Module,
        codebook: Tensor,
        tensors: Mapping[str, Tensor],
        *,
        divisor: float = 1,
    ) -> None:
        super().__init__()
        self.cut = cut
        self.register_buffer("analysis", tensors["analysis"] / divisor)
        self.register_buffer("offset", -tensors["mean"] @ tensors["analysis"])
        self.nearest = NearestCodes(codebook)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        grids: Tensor = self.nearest(self.cut(inputs) @ self.analysis + self.offset)
        return grids


class LearnedEncoder(nn.Module):
    """Latents of a small ConvNet → ids: `conv-vq` and `mel-conv`."""

    def __init__(self, planes: nn.Module, tokenizer: ConvTokenizer | MelConvTokenizer) -> None:
        super().__init__()
        settings: Mapping[str, Any] = tokenizer.settings()
        network = Autoencoder(NetworkConfig.from_json(settings["network"]))
        network.load_state_dict(tokenizer.network_weights())
        self.planes = planes
        self.encoder = network.encoder
        self.bound = Bound.from_json(settings)
        self.nearest = NearestCodes(tokenizer.codebook)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        latents_BCHW = self.encoder(self.planes(inputs))
        grids: Tensor = self.nearest(self.bound(latents_BCHW.permute(0, 2, 3, 1)))
        return grids


class LoudnessEncoder(nn.Module):
    """Rounded mean levels of patches → ids: `dmel`."""

    def __init__(self, config: MelConfig) -> None:
        super().__init__()
        self.patch = config.patch
        self.levels = MelPlanes(config, {})

    @override
    def forward(self, waves: Tensor) -> Tensor:
        means_BHW = functional.avg_pool2d(self.levels(waves), self.patch)[:, 0]
        shares = (means_BHW - FLOOR_DB) / RANGE_DB
        return (shares * NUM_VALUES).long().clamp(0, NUM_VALUES - 1)
