"""`mel-vq` and `mel-rvq`: codes of spectrogram patches, fitted in seconds without a download.

The front end turns each window into a plane. Each patch of it is centered, projected on its first C
principal components, scaled to variance λ^(1 − whitening) per component, and replaced by the
nearest of K centers found by k-means. `mel-rvq` repeats this on the residual, level after level.
Decoding inverts the linear maps; it returns spectrograms, not sound.

Legend: B windows, T samples of a window, M bands, F frames, H W grid of patches, D values of a
patch, C components kept, K codes, L levels, N patches.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from typing_extensions import override

from seit.errors import DamagedError
from seit.tokenizers.fitted.base import ComponentsTokenizer, choose_points
from seit.tokenizers.fitted.pca import fit_components
from seit.tokenizers.learned.autoencoder import fold, unfold
from seit.tokenizers.mel import MelConfig, MelFrontEnd, SpectrogramTokenizer


class MelTokenizer(ComponentsTokenizer, SpectrogramTokenizer):
    """Nearest-center codes of spectrogram patches; see the module's docstring.

    Row 0 of a grid is the lowest frequency. :meth:`decode` returns spectrograms float32 (B, M, F)
    in dB.
    """

    name: ClassVar[str] = "mel-vq"

    def __init__(self, codebook: Tensor, front_end: MelFrontEnd, **maps: Tensor) -> None:
        """Initialize from a front end and the maps of :class:`ComponentsTokenizer`."""
        super().__init__(codebook, **maps)
        self.take_front_end(front_end)

    @classmethod
    def fit(
        cls,
        waves: Tensor,
        config: MelConfig,
        *,
        num_codes: int = 1024,
        levels: int = 1,
        dim: int = 16,
        whitening: float = 0.25,
        seed: int = 0,
    ) -> Self:
        """Fit on waveforms float32 (B, T); uses at most 131,072 of their patches.

        ``levels`` is 1 for `mel-vq`, and larger for `mel-rvq`.

        Raises:
            UsageError: there are fewer patches than codes, or an argument is out of range.
        """
        cls.check_fit(
            num_codes=num_codes,
            levels=levels,
            dim=dim,
            patch_values=config.patch_values,
            whitening=whitening,
        )
        height, width = config.grid
        chosen = choose_points(
            len(waves),
            per_input=height * width,
            num_codes=num_codes,
            seed=seed,
            what="windows of audio",
        )
        front_end = MelFrontEnd.fit(config, waves)
        patches_ND = torch.cat(
            [_to_patches(front_end.planes(wave[None]), config).flatten(0, 2) for wave in waves]
        )
        components = fit_components(patches_ND[chosen], dim=dim, whitening=whitening)
        codebook = cls.fit_codes(components.points, num_codes, levels, seed=seed)
        return cls(codebook, front_end, **components.maps())

    @property
    @override
    def grid(self) -> tuple[int, int]:
        height, width = self.front_end.config.grid
        return self.levels * height, width

    @override
    @torch.no_grad()
    def encode(self, waves: Tensor, /) -> Tensor:
        # One at a time on a CPU, so that tokens do not depend on the batch.
        group = 1 if not self.codebook.is_cuda else max(1, len(waves))
        return torch.cat([self._encode(part) for part in waves.split(group)])

    def _encode(self, waves: Tensor) -> Tensor:
        return self.nearest(_to_patches(self.front_end.planes(waves), self.front_end.config))

    @override
    def decode_ids(self, tokens: Tensor, /) -> Tensor:
        patches = self.vectors(tokens) @ self._synthesis_CD + self._mean_D
        planes = fold(patches.permute(0, 3, 1, 2), *self.front_end.config.patch)
        return self.front_end.to_levels(planes)

    @override
    def tensors(self) -> dict[str, Tensor]:
        return {**self.front_end.tensors(), **super().tensors()}

    @override
    def settings(self) -> dict[str, Any]:
        return {"front_end": self.front_end.settings()}

    @classmethod
    @override
    def restore(
        cls, codebook: Tensor, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> Self:
        if not isinstance(settings, dict) or "front_end" not in settings:
            raise DamagedError(f"the settings of a {cls.name} tokenizer name no front end")
        front_end = MelFrontEnd.restore(tensors, settings["front_end"])
        maps = {key: one for key, one in tensors.items() if key not in front_end.tensors()}
        cls._check_maps(codebook, maps, front_end.config.patch_values)
        return cls(codebook, front_end, **maps)

    @override
    def to(self, device: str | torch.device) -> Self:
        front_end = self.front_end.to(device)
        return type(self)(self.codebook.to(device), front_end, **self._maps(device))


class ResidualMelTokenizer(MelTokenizer):
    """Spectrogram patches in several levels of codes, each for the residual of those before.

    ``codebook`` is (L, K, C); rows l·H … (l + 1)·H − 1 of a grid are the ids of level l.
    """

    name: ClassVar[str] = "mel-rvq"
    is_residual: ClassVar[bool] = True


def _to_patches(planes: Tensor, config: MelConfig) -> Tensor:
    """Split planes (B, 1, M, F) into patches (B, H, W, D)."""
    return unfold(planes, *config.patch).permute(0, 2, 3, 1)
