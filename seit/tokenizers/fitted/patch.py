"""`patch-pca-vq` and `patch-pca-rvq`: fitted in seconds, without a download.

Each 8×8 patch is centered, projected on its first C principal components, scaled to variance
λ^(1 − whitening) per component, and replaced by the nearest of K centers found by k-means. Decoding
inverts the linear maps. Whitening 0 gives the best PSNR; more of it spends codes on edges and
textures instead of flat shades, after Coates and Ng, "Learning Feature Representations with
K-means" (2012), who whiten fully (1): that costs 5 dB here, the default of 0.25 costs 0.3 dB.
`patch-pca-rvq` repeats the quantization on the residual, level after level.

Legend: B images, S image side, P patch side, H W token grid, D = 3·P² values of a patch, C
components kept, K codes, L levels, N patches.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from typing_extensions import override

from seit.errors import DamagedError, UsageError
from seit.tokenizers.base import ImageTokenizer
from seit.tokenizers.fitted.base import ComponentsTokenizer, choose_points
from seit.tokenizers.fitted.pca import fit_components

_CPU_IMAGES = 4
"""Images at a time on a CPU, so that intermediate values stay in the cache."""
_MAX_IMAGE_SIZE = 1 << 14


class PatchTokenizer(ComponentsTokenizer, ImageTokenizer):
    """Nearest-center codes of whitened patches; see the module's docstring."""

    name: ClassVar[str] = "patch-pca-vq"

    def __init__(
        self, codebook: Tensor, *, image_size: int, patch_size: int, **maps: Tensor
    ) -> None:
        """Initialize from the maps of :class:`ComponentsTokenizer`, for ``patch_size`` px."""
        super().__init__(codebook, **maps)
        self.image_size = image_size
        self.patch_size = patch_size

    @classmethod
    def fit(
        cls,
        images: Tensor,
        *,
        num_codes: int = 1024,
        levels: int = 1,
        patch_size: int = 8,
        dim: int = 16,
        whitening: float = 0.25,
        seed: int = 0,
    ) -> Self:
        """Fit on images uint8 (B, S, S, 3); uses at most 131,072 of their patches.

        ``levels`` is 1 for `patch-pca-vq`, and larger for `patch-pca-rvq`.

        Raises:
            UsageError: the image side is not a multiple of the patch side, there are fewer
                patches than codes, or an argument is out of range.
        """
        if patch_size < 1 or images.shape[1] % patch_size:
            raise UsageError(
                f"an image side of {images.shape[1]} is not a multiple of the patch side "
                f"{patch_size}; choose a --size that is"
            )
        cls.check_fit(
            num_codes=num_codes,
            levels=levels,
            dim=dim,
            patch_values=3 * patch_size**2,
            whitening=whitening,
        )
        chosen = choose_points(
            len(images),
            per_input=(images.shape[1] // patch_size) ** 2,
            num_codes=num_codes,
            seed=seed,
            what="images",
        )
        patches_ND = _to_patches(images, patch_size).flatten(0, 2)[chosen].float() / 255
        components = fit_components(patches_ND, dim=dim, whitening=whitening)
        codebook = cls.fit_codes(components.points, num_codes, levels, seed=seed)
        return cls(codebook, image_size=images.shape[1], patch_size=patch_size, **components.maps())

    @property
    @override
    def grid(self) -> tuple[int, int]:
        side = self.image_size // self.patch_size
        return self.levels * side, side

    @override
    def encode(self, images: Tensor) -> Tensor:
        images = images.to(self.codebook.device)
        group = _CPU_IMAGES if images.device.type == "cpu" else max(1, len(images))
        return torch.cat([self._encode(images_BSS3) for images_BSS3 in images.split(group)])

    def _encode(self, images_BSS3: Tensor) -> Tensor:
        return self.nearest(_to_patches(images_BSS3, self.patch_size).float(), divisor=255)

    @override
    def decode_ids(self, tokens: Tensor) -> Tensor:
        if self.levels > 1:
            patches = self.vectors(tokens) @ self._synthesis_CD + self._mean_D
            return self._to_images(_to_pixels(patches))
        pixels_KD = _to_pixels(self.codebook @ self._synthesis_CD + self._mean_D)
        return self._to_images(pixels_KD[tokens])

    def _to_images(self, patches: Tensor) -> Tensor:
        """Join patches uint8 (B, H, W, D) to images (B, S, S, 3)."""
        side = self.patch_size
        batch, height, width, _ = patches.shape
        return (
            patches.view(batch, height, width, side, side, 3)
            .permute(0, 1, 3, 2, 4, 5)
            .reshape(batch, height * side, width * side, 3)
        )

    @override
    def settings(self) -> dict[str, Any]:
        return {"image_size": self.image_size, "patch_size": self.patch_size}

    @classmethod
    @override
    def restore(
        cls, codebook: Tensor, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> Self:
        try:
            image_size, patch_size = int(settings["image_size"]), int(settings["patch_size"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DamagedError(f"the settings of a {cls.name} tokenizer lack {error}") from error
        cls._check_maps(codebook, tensors, 3 * patch_size**2)
        if not 1 <= patch_size <= image_size <= _MAX_IMAGE_SIZE or image_size % patch_size:
            raise DamagedError(f"a {cls.name} tokenizer cuts {image_size} px into {patch_size} px")
        return cls(codebook, image_size=image_size, patch_size=patch_size, **tensors)

    @override
    def to(self, device: str | torch.device) -> Self:
        return type(self)(
            self.codebook.to(device),
            image_size=self.image_size,
            patch_size=self.patch_size,
            **self._maps(device),
        )


class ResidualPatchTokenizer(PatchTokenizer):
    """Whitened patches in several levels of codes, each for the residual of those before.

    ``codebook`` is (L, K, C); rows l·H … (l + 1)·H − 1 of a grid are the ids of level l.
    """

    name: ClassVar[str] = "patch-pca-rvq"
    is_residual: ClassVar[bool] = True


def _to_pixels(values: Tensor) -> Tensor:
    """Round and clip values 0–1 to uint8."""
    return (values * 255).round().clamp(0, 255).to(torch.uint8)


def _to_patches(images: Tensor, patch_size: int) -> Tensor:
    """Cut images (B, S, S, 3) into patches (B, H, W, D)."""
    batch, height, width, _ = images.shape
    rows, columns = height // patch_size, width // patch_size
    return (
        images.reshape(batch, rows, patch_size, columns, patch_size, 3)
        .permute(0, 1, 3, 2, 4, 5)
        .reshape(batch, rows, columns, -1)
    )
