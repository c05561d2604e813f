"""Bounds of latents, applied before the search for the nearest code.

A quantizer without a bound compares latents as they are. Finite scalar quantization (Mentzer et
al., "Finite Scalar Quantization: VQ-VAE Made Simple", 2023, appendix A.1) squeezes each dim into
the range of its levels; lookup-free quantization (Yu et al., "Language Model Beats Diffusion",
2023) keeps only signs.

Legend: C latent dim, K codes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor

_MARGIN = 1e-3
"""The bound exceeds the outermost level by this share of half the range, to make it reachable."""
MAX_CODES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Bound:
    """Bounding function.

    Attributes:
        kind: none; tanh, for `fsq`; sign, for `lfq`.
        levels: levels of each dim with tanh, at least 3; the codes are their product.
    """

    kind: Literal["none", "tanh", "sign"] = "none"
    levels: tuple[int, ...] = ()

    def __call__(self, latents: Tensor) -> Tensor:
        """Bound latents (…, C): float (…, C), in the coordinates of the codes."""
        if self.kind == "sign":
            return torch.where(latents > 0, 1.0, -1.0)
        if self.kind == "none":
            return latents
        levels_C = torch.tensor(self.levels, device=latents.device)
        half_C = (levels_C - 1) * (1 + _MARGIN) / 2
        offset_C = torch.where(levels_C % 2 == 0, 0.5, 0.0)
        squeezed = torch.tanh(latents + torch.atanh(offset_C / half_C)) * half_C - offset_C
        return squeezed / (levels_C // 2)

    def check(self, num_codes: int, dim: int) -> None:
        """Check that a codebook (K, C) fits.

        Raises:
            ValueError: it does not.
        """
        if self.kind == "tanh":
            if len(self.levels) != dim or any(
                type(level) is not int or level < 3 for level in self.levels
            ):
                raise ValueError(f"levels {self.levels} for {dim} dims, each at least 3")
            if math.prod(self.levels) != num_codes:
                raise ValueError(f"levels {self.levels} do not make {num_codes} codes")
        elif self.kind == "sign" and num_codes.bit_length() - 1 != dim:
            raise ValueError(f"{num_codes} codes for the signs of {dim} dims")

    def to_json(self) -> dict[str, Any]:
        """Return the settings that :meth:`from_json` reads; none for no bound."""
        if self.kind == "none":
            return {}
        if self.kind == "sign":
            return {"bound": "sign"}
        return {"bound": "tanh", "levels": list(self.levels)}

    @classmethod
    def from_json(cls, settings: Mapping[str, Any]) -> Self:
        """Read the settings of :meth:`to_json` among others.

        Raises:
            ValueError, TypeError: they are invalid.
        """
        kind = settings.get("bound", "none")
        if kind not in ("none", "tanh", "sign"):
            raise ValueError(f"the bound {kind!r}")
        return cls(kind=kind, levels=tuple(settings.get("levels", ())))
