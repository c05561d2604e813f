"""Base of tokenizers: images or audio → token grids, and back for viewing.

Legend: B inputs, S image side, T samples of a window of audio, H W token grid, K codes, C codebook
dim, L levels of a residual tokenizer.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import override

from seit.errors import UsageError
from seit.modality import Modality
from seit.packed_weights import PackedWeight


@dataclass(frozen=True)
class ImageInputs:
    """Square RGB images uint8 (S, S, 3); ``size`` is S, in pixels."""

    size: int
    modality: ClassVar[Modality] = "image"
    dtype: ClassVar[type[np.generic]] = np.uint8

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.size, self.size, 3


@dataclass(frozen=True)
class AudioInputs:
    """Mono windows float32 (T,), full scale at ±1.

    Attributes:
        sample_rate: samples per second.
        window: T, samples.
    """

    sample_rate: int
    window: int
    modality: ClassVar[Modality] = "audio"
    dtype: ClassVar[type[np.generic]] = np.float32

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return (self.window,)

    @property
    def seconds(self) -> float:
        """Duration of a window."""
        return self.window / self.sample_rate


Inputs: TypeAlias = ImageInputs | AudioInputs
"""Inputs of a tokenizer; picklable, so that worker processes can decode them."""


class Tokenizer(ABC):
    """Base of tokenizers, which turn inputs into grids of ids that index a codebook.

    A residual tokenizer has L > 1 levels: the rows of its grid are L blocks of H rows, block l
    holding the ids of level l, and the vector of a position is the sum over the levels.

    Attributes:
        name: registered name of the kind of tokenizer.
        modality: modality of its inputs.
        flip_equivariant: whether the grid of a mirrored image is the mirrored grid.
        has_packable_weights: whether it computes with a network whose weights may be stored in few
            bits, apart from the codebook.
        codebook: float32 (K, C) or (L, K, C), vectors that embed ids in training.
        packed: weights that its file keeps in few bits, by name; their values are those of
            :meth:`tensors`.
    """

    name: ClassVar[str]
    modality: ClassVar[Modality]
    flip_equivariant: ClassVar[bool] = False
    has_packable_weights: ClassVar[bool] = False

    codebook: Tensor
    packed: Mapping[str, PackedWeight] = {}

    @property
    @abstractmethod
    def inputs(self) -> Inputs:
        """Kind and shape of one input."""

    @property
    @abstractmethod
    def grid(self) -> tuple[int, int]:
        """Token grid (H, W) of one input as stored: (L·H, W) if there are several levels."""

    @abstractmethod
    def encode(self, inputs: Tensor, /) -> Tensor:
        """Tokenize inputs (B, …), with shape and dtype of :attr:`inputs`, into ids int64."""

    @torch.no_grad()
    def decode(self, tokens: Tensor | npt.ArrayLike, /) -> Tensor:
        """Decode ids (B, H, W) into approximations of their inputs, for viewing.

        Args:
            tokens: integers of any type, 0…K−1, as a tensor or a NumPy array.

        Returns:
            Images uint8 (B, S, S, 3), waves float32 (B, T) or mel levels, depending on the kind.

        Raises:
            UsageError: they are not ids of this tokenizer.
        """
        return self.decode_ids(self._checked_ids(tokens))

    @abstractmethod
    def decode_ids(self, tokens: Tensor, /) -> Tensor:
        """Decode checked ids int64 (B, H, W) on the codebook's device."""

    def _checked_ids(self, tokens: Tensor | npt.ArrayLike) -> Tensor:
        if not isinstance(tokens, Tensor):
            array = np.asarray(tokens)
            if array.dtype.kind not in "iu":
                raise UsageError(f"ids of type {array.dtype}; expected integers")
            tokens = torch.from_numpy(array.astype(np.int64))
        if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
            raise UsageError(f"ids of type {tokens.dtype}; expected integers")
        height, width = self.grid
        if tokens.ndim != 3 or tokens.shape[1] % self.levels or 0 in tokens.shape[1:]:
            hint = "; pass ids[None] for one grid" if tokens.ndim == 2 else ""
            raise UsageError(
                f"ids of shape {tuple(tokens.shape)}; expected (B, {height}, {width}){hint}"
            )
        tokens = tokens.to(self.codebook.device, torch.int64)
        if tokens.numel():
            least, most = int(tokens.min()), int(tokens.max())
            if least < 0 or most >= self.num_codes:
                raise UsageError(
                    f"ids reach {least:,} to {most:,}; this {self.name} has 0 to "
                    f"{self.num_codes - 1:,}"
                )
        return tokens

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return the weights except the codebook, by name."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the JSON-serializable arguments that define the tokenizer with its weights."""

    @classmethod
    @abstractmethod
    def restore(
        cls, codebook: Tensor, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> Self:
        """Build the tokenizer from ``tensors`` and ``settings``.

        Raises:
            DamagedError: they do not fit together.
        """

    @abstractmethod
    def to(self, device: str | torch.device) -> Self:
        """Return a copy of the tokenizer with its weights on ``device``."""

    @abstractmethod
    def preprocessing(self) -> dict[str, Any]:
        """Return the preprocessing of its inputs, for the store's card."""

    @property
    def levels(self) -> int:
        """L, the number of codes per position."""
        return self.codebook.shape[0] if self.codebook.ndim == 3 else 1

    @property
    def codes_by_level(self) -> Tensor:
        """Codebook as (L, K, C), whether residual or not."""
        return self.codebook.view(self.levels, self.num_codes, self.codebook_dim)

    def vectors(self, tokens: Tensor) -> Tensor:
        """Look up ids int64 (B, L·H, W): float32 (B, H, W, C), the sum over levels."""
        ids_BLHW = tokens.unflatten(1, (self.levels, -1))
        return torch.stack(
            [codes_KC[ids_BLHW[:, level]] for level, codes_KC in enumerate(self.codes_by_level)]
        ).sum(0)

    @property
    def num_codes(self) -> int:
        """K, the number of codes of each level."""
        return self.codebook.shape[-2]

    @property
    def codebook_dim(self) -> int:
        """C, the codebook dim."""
        return self.codebook.shape[-1]

    @property
    def fingerprint(self) -> str:
        """The sha256 of name, settings and weights: equal if and only if the tokens would be."""
        digest = hashlib.sha256(json.dumps([self.name, self.settings()], sort_keys=True).encode())
        for key, tensor in sorted({**self.tensors(), "codebook": self.codebook}.items()):
            digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


class ImageTokenizer(Tokenizer):
    """Tokenizer of images uint8 (B, S, S, 3), RGB.

    Attributes:
        image_size: side S of its square images, in pixels.
    """

    modality: ClassVar[Modality] = "image"

    image_size: int

    @property
    @override
    def inputs(self) -> ImageInputs:
        return ImageInputs(self.image_size)

    @override
    def preprocessing(self) -> dict[str, Any]:
        return {
            "color": "RGB",
            "resize": "shorter side, bicubic",
            "crop": "centre",
            "size": self.image_size,
        }


class AudioTokenizer(Tokenizer):
    """Tokenizer of audio float32 (B, T), mono, full scale at ±1.

    Attributes:
        sample_rate: samples per second.
        window: T, samples; longer clips are cut into several windows.
    """

    modality: ClassVar[Modality] = "audio"

    sample_rate: int
    window: int

    @property
    @override
    def inputs(self) -> AudioInputs:
        return AudioInputs(self.sample_rate, self.window)

    @override
    def preprocessing(self) -> dict[str, Any]:
        return {
            "channels": "mean",
            "resample": "soxr HQ",
            "sample_rate": self.sample_rate,
            "window": self.window,
        }
