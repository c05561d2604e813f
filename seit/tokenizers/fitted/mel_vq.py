"""`mel-vq` and `mel-rvq`: codes of spectrogram patches, fitted in seconds without a download.

The front end makes a plane of each window. Each patch of it is centred, projected on its first C
principal components, scaled to variance λ^(1 − whitening) per component, and replaced by the
nearest of K centres found by k-means. `mel-rvq` does the same again with what is left over, level
after level. Decoding is the linear way back; it gives spectrograms, not sound.

Shape letters: B windows, T samples of a window, M bands, F frames, H W grid of patches, D values
of a patch, C components kept, K codes, L levels, N patches.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from typing_extensions import override

from seit.errors import DamagedError, UsageError
from seit.tokenizers.base import AudioTokenizer
from seit.tokenizers.fitted.kmeans import assign, fit_kmeans
from seit.tokenizers.fitted.pca import fit_components
from seit.tokenizers.learned.autoencoder import fold, unfold
from seit.tokenizers.mel import MelConfig, MelFrontEnd

MAX_LEVELS = 16
_MAX_FIT_PATCHES = 131_072
_MAX_CODES = _MAX_FIT_PATCHES // 2


class MelTokenizer(AudioTokenizer):
    """Nearest-centre codes of spectrogram patches; see the module's docstring.

    ``codebook`` holds the centres in whitened coordinates (K, C), scaled to unit mean square.
    Row 0 of a grid is the lowest frequency. :meth:`decode` gives spectrograms float32 (B, M, F)
    in dB.
    """

    name: ClassVar[str] = "mel-vq"
    is_residual: ClassVar[bool] = False

    def __init__(
        self,
        codebook: Tensor,
        front_end: MelFrontEnd,
        *,
        mean: Tensor,
        analysis: Tensor,
        synthesis: Tensor,
    ) -> None:
        """Hold ``mean`` (D,), ``analysis`` (D, C) and ``synthesis`` (C, D), all float32."""
        self.codebook = codebook.contiguous()
        self.front_end = front_end
        self.sample_rate = front_end.config.sample_rate
        self.window = front_end.config.window
        self._mean_D = mean.contiguous()
        self._analysis_DC = analysis.contiguous()
        self._synthesis_CD = synthesis.contiguous()

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
        """Fit on waveforms float32 (B, T); at most 131,072 of their patches are used.

        ``levels`` are 1 of a `mel-vq` tokenizer, and more of a `mel-rvq` one.

        Raises:
            UsageError: there are fewer patches than codes, or an argument is out of range.
        """
        if not 0 <= whitening <= 1:
            raise UsageError(f"whitening is {whitening}; it goes from 0 (none) to 1 (full)")
        if not 2 <= num_codes <= _MAX_CODES:
            raise UsageError(f"the codebook is of {num_codes} codes; it has 2 to {_MAX_CODES}")
        if not 1 <= dim <= config.patch_values:
            raise UsageError(f"dim is {dim}; these patches have 1 to {config.patch_values}")
        low, high = (2, MAX_LEVELS) if cls.is_residual else (1, 1)
        if not low <= levels <= high:
            raise UsageError(f"levels is {levels}; a {cls.name} tokenizer has {low} to {high}")
        height, width = config.grid
        available = len(waves) * height * width
        if available < 2 * num_codes:
            raise UsageError(
                f"{len(waves)} windows of audio give {available} patches, too few for {num_codes} "
                f"codes; give at least {-(-2 * num_codes // (height * width))} windows or fewer "
                "--codes"
            )
        front_end = MelFrontEnd.fit(config, waves)
        patches_ND = torch.cat(
            [_to_patches(front_end.planes(wave[None]), config).flatten(0, 2) for wave in waves]
        )
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(available, generator=generator)[:_MAX_FIT_PATCHES].sort().values
        components = fit_components(patches_ND[chosen], dim=dim, whitening=whitening)
        return cls(
            _fit_levels(components.points, num_codes, levels, seed=seed),
            front_end,
            mean=components.mean,
            analysis=components.analysis,
            synthesis=components.synthesis,
        )

    @property
    @override
    def grid(self) -> tuple[int, int]:
        height, width = self.front_end.config.grid
        return self.levels * height, width

    @override
    @torch.no_grad()
    def encode(self, waves: Tensor, /) -> Tensor:
        # One at a time on a CPU, so that no token depends on what it is batched with.
        group = 1 if not self.codebook.is_cuda else max(1, len(waves))
        return torch.cat([self._encode(part) for part in waves.split(group)])

    def _encode(self, waves: Tensor) -> Tensor:
        patches = _to_patches(self.front_end.planes(waves), self.front_end.config)
        rest_NC = torch.addmm(
            -self._mean_D @ self._analysis_DC, patches.flatten(0, 2), self._analysis_DC
        )
        ids = []
        for codes_KC in _by_level(self.codebook):
            nearest_N = assign(rest_NC, codes_KC)
            rest_NC = rest_NC - codes_KC[nearest_N]
            ids.append(nearest_N.view(patches.shape[:3]))
        return torch.cat(ids, dim=1)

    @override
    def decode_ids(self, tokens: Tensor, /) -> Tensor:
        ids_BLHW = tokens.unflatten(1, (self.levels, -1))
        codes_LKC = _by_level(self.codebook)
        points = torch.stack(
            [codes_KC[ids_BLHW[:, level]] for level, codes_KC in enumerate(codes_LKC)]
        ).sum(0)
        patches = points @ self._synthesis_CD + self._mean_D
        planes = fold(patches.permute(0, 3, 1, 2), *self.front_end.config.patch)
        return self.front_end.to_levels(planes)

    @override
    def tensors(self) -> dict[str, Tensor]:
        return {
            **self.front_end.tensors(),
            "mean": self._mean_D,
            "analysis": self._analysis_DC,
            "synthesis": self._synthesis_CD,
        }

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
        values, dim = front_end.config.patch_values, codebook.shape[-1]
        expected = {"mean": (values,), "analysis": (values, dim), "synthesis": (dim, values)}
        own = {key: tensors[key] for key in expected if key in tensors}
        found = {key: tuple(tensor.shape) for key, tensor in own.items()}
        if codebook.ndim != 2 + cls.is_residual:
            raise DamagedError(f"a {cls.name} tokenizer has no codebook {tuple(codebook.shape)}")
        is_known = tensors.keys() == own.keys() | front_end.tensors().keys()
        if not is_known or found != expected or any(x.dtype != torch.float32 for x in own.values()):
            raise DamagedError(f"a {cls.name} tokenizer holds {found}; expected float32 {expected}")
        return cls(codebook, front_end, **own)

    @override
    def to(self, device: str | torch.device) -> Self:
        return type(self)(
            self.codebook.to(device),
            self.front_end.to(device),
            mean=self._mean_D.to(device),
            analysis=self._analysis_DC.to(device),
            synthesis=self._synthesis_CD.to(device),
        )


class ResidualMelTokenizer(MelTokenizer):
    """Spectrogram patches in several levels of codes, each for what those before leave over.

    ``codebook`` is (L, K, C); rows l·H … (l + 1)·H − 1 of a grid are the ids of level l.
    """

    name: ClassVar[str] = "mel-rvq"
    is_residual: ClassVar[bool] = True


def _fit_levels(points_NC: Tensor, num_codes: int, levels: int, *, seed: int) -> Tensor:
    """The codebook (K, C), or (L, K, C): k-means of what the levels before leave over."""
    if levels == 1:
        return fit_kmeans(points_NC, num_codes, seed=seed)
    codebook = []
    for level in range(levels):
        codebook.append(fit_kmeans(points_NC, num_codes, seed=seed + level))
        points_NC = points_NC - codebook[-1][assign(points_NC, codebook[-1])]
    return torch.stack(codebook)


def _by_level(codebook: Tensor) -> Tensor:
    """(K, C) or (L, K, C) → (L, K, C)."""
    return codebook if codebook.ndim == 3 else codebook[None]


def _to_patches(planes: Tensor, config: MelConfig) -> Tensor:
    """Planes (B, 1, M, F) → patches (B, H, W, D)."""
    return unfold(planes, *config.patch).permute(0, 2, 3, 1)
