"""Base of fitted tokenizers: choice of points to fit on, and linear maps from patches to codes.

Legend: D values of a patch, C components kept, K codes, L levels, N patches.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from seit.errors import DamagedError, UsageError
from seit.tokenizers.base import Tokenizer
from seit.tokenizers.fitted.kmeans import assign, fit_kmeans

MAX_FIT_POINTS = 131_072
"""Most patches or latents in a fit."""
MAX_FIT_CODES = MAX_FIT_POINTS // 2
MAX_LEVELS = 16


def check_codes(num_codes: int) -> None:
    """Check the size of a codebook to fit.

    Raises:
        UsageError: it has fewer than 2 codes or too many.
    """
    if not 2 <= num_codes <= MAX_FIT_CODES:
        raise UsageError(f"the codebook has {num_codes} codes; expected 2 to {MAX_FIT_CODES}")


def choose_points(
    num_inputs: int, *, per_input: int, num_codes: int, seed: int, what: str
) -> Tensor:
    """Choose the points to fit on: their numbers int64, ascending, at most `MAX_FIT_POINTS`.

    Args:
        num_inputs: number of images or windows.
        per_input: patches or latents of each.
        num_codes: K.
        seed: seed of the choice.
        what: word for inputs in messages.

    Raises:
        UsageError: there are fewer than two points per code.
    """
    available = num_inputs * per_input
    if available < 2 * num_codes:
        raise UsageError(
            f"{num_inputs} {what} yield {available} patches, too few for {num_codes} codes; give "
            f"at least {-(-2 * num_codes // per_input)} {what} or fewer --codes"
        )
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(available, generator=generator)[:MAX_FIT_POINTS].sort().values


class ComponentsTokenizer(Tokenizer):
    """Nearest-center codes of patches' principal components.

    ``codebook`` holds the centers in whitened coordinates (K, C), scaled to unit mean square; or
    (L, K, C) of a residual kind, whose levels quantize what those before them left.
    """

    is_residual: ClassVar[bool] = False

    def __init__(
        self, codebook: Tensor, *, mean: Tensor, analysis: Tensor, synthesis: Tensor
    ) -> None:
        """Initialize from ``mean`` (D,), ``analysis`` (D, C), ``synthesis`` (C, D), all float32."""
        # Fitted and loaded tokenizers need one layout: others round differently in matmuls.
        self.codebook = codebook.contiguous()
        self._mean_D = mean.contiguous()
        self._analysis_DC = analysis.contiguous()
        self._synthesis_CD = synthesis.contiguous()

    @classmethod
    def check_fit(
        cls, *, num_codes: int, levels: int, dim: int, patch_values: int, whitening: float
    ) -> None:
        """Check the arguments of a fit; ``patch_values`` is D, ``dim`` C, ``levels`` L.

        Raises:
            UsageError: one is out of range.
        """
        if not 0 <= whitening <= 1:
            raise UsageError(f"whitening is {whitening}; expected 0 (none) to 1 (full)")
        check_codes(num_codes)
        if not 1 <= dim <= patch_values:
            raise UsageError(f"dim is {dim}; expected 1 to {patch_values}")
        low, high = (2, MAX_LEVELS) if cls.is_residual else (1, 1)
        if not low <= levels <= high:
            raise UsageError(f"levels is {levels}; a {cls.name} tokenizer has {low} to {high}")

    @staticmethod
    def fit_codes(points_NC: Tensor, num_codes: int, levels: int, *, seed: int) -> Tensor:
        """Fit a codebook (K, C), or (L, K, C), by k-means, each level on the residual so far."""
        if levels == 1:
            return fit_kmeans(points_NC, num_codes, seed=seed)
        codebook = []
        for level in range(levels):
            codebook.append(fit_kmeans(points_NC, num_codes, seed=seed + level))
            points_NC = points_NC - codebook[-1][assign(points_NC, codebook[-1])]
        return torch.stack(codebook)

    def nearest(self, patches: Tensor, *, divisor: float = 1) -> Tensor:
        """Return the ids (B, L·H, W) of patches (B, H, W, D), whose values are divided first."""
        rest_NC = torch.addmm(
            -self._mean_D @ self._analysis_DC,
            patches.flatten(0, 2),
            self._analysis_DC / divisor,
        )
        ids = []
        for codes_KC in self.codes_by_level:
            nearest_N = assign(rest_NC, codes_KC)
            ids.append(nearest_N.view(patches.shape[:3]))
            if len(ids) < self.levels:
                rest_NC = rest_NC - codes_KC[nearest_N]
        return torch.cat(ids, dim=1)

    @override
    def tensors(self) -> dict[str, Tensor]:
        return self._maps()

    def _maps(self, device: str | torch.device | None = None) -> dict[str, Tensor]:
        """Return the linear maps by name, on ``device`` or where they are."""
        maps = {
            "mean": self._mean_D,
            "analysis": self._analysis_DC,
            "synthesis": self._synthesis_CD,
        }
        return {key: one if device is None else one.to(device) for key, one in maps.items()}

    @classmethod
    def _check_maps(cls, codebook: Tensor, maps: Mapping[str, Tensor], patch_values: int) -> None:
        """Check the linear maps of a file against its codebook and D, ``patch_values``.

        Raises:
            DamagedError: they do not fit.
        """
        if codebook.ndim != 2 + cls.is_residual:
            raise DamagedError(f"a {cls.name} tokenizer has no codebook {tuple(codebook.shape)}")
        dim = codebook.shape[-1]
        expected = {
            "mean": (patch_values,),
            "analysis": (patch_values, dim),
            "synthesis": (dim, patch_values),
        }
        found = {key: tuple(tensor.shape) for key, tensor in maps.items()}
        if found != expected or any(one.dtype != torch.float32 for one in maps.values()):
            raise DamagedError(f"a {cls.name} tokenizer holds {found}; expected float32 {expected}")
