"""Tokenizer of imported token files: a codebook and a grid, no network."""

from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn, Self

import torch
from torch import Tensor
from typing_extensions import override

from seit.errors import DamagedError, UsageError
from seit.tokenizers.base import ImageTokenizer
from seit.tokenizers.published.references import ReferableTokenizer

_PATCH = 8
"""Pixels per token side in ViT-VQGAN, which made the files of naver-ai/seit."""
_MAX_SIDE = 1 << 14


class ImportedTokenizer(ReferableTokenizer, ImageTokenizer):
    """Codes of naver-ai/seit's files, which hold no network to encode or decode with.

    Networks can be trained and evaluated on its tokens, but it cannot decode pictures.
    """

    name: ClassVar[str] = "imported"

    def __init__(self, codebook: Tensor, grid: tuple[int, int], fingerprint: str) -> None:
        """Initialize from a codebook float32 (K, C), grid (H, W) and the store's fingerprint."""
        self.codebook = codebook.contiguous()
        self.image_size = _PATCH * max(grid)
        self._grid = grid
        self._referred = fingerprint

    @property
    @override
    def grid(self) -> tuple[int, int]:
        return self._grid

    @override
    def encode(self, images: Tensor, /) -> NoReturn:
        raise self.missing_weights()

    @override
    def decode_ids(self, tokens: Tensor, /) -> NoReturn:
        raise self.missing_weights()

    @override
    def missing_weights(self) -> UsageError:
        return UsageError(
            "the tokens were imported from naver-ai/seit's files, which hold no network to encode "
            "or decode pictures with; tokenize the photos themselves to work with pictures"
        )

    @override
    def tensors(self) -> dict[str, Tensor]:
        return {}

    @override
    def settings(self) -> dict[str, Any]:
        return {"grid": list(self._grid)}

    @override
    def preprocessing(self) -> dict[str, Any]:
        return {}

    @classmethod
    @override
    def reference(cls, codebook: Tensor, settings: Mapping[str, Any], fingerprint: str) -> Self:
        match settings.get("grid"):
            case [int(height), int(width)] if 0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE:
                return cls(codebook, (height, width), fingerprint)
            case found:
                raise DamagedError(f"{found!r} is not a grid of an imported tokenizer")

    @classmethod
    @override
    def restore(
        cls, codebook: Tensor, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> NoReturn:
        raise DamagedError("an imported tokenizer has no weights; restore it from a copy")

    @override
    def to(self, device: str | torch.device) -> Self:
        return type(self)(self.codebook.to(device), self._grid, self.fingerprint)
