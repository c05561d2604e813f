"""`dmel`: ordinal levels of spectrogram patches, without any fit.

After dMel (Bai et al., arXiv 2407.15835), which rounds each channel of a log-mel frame to one of
16 evenly spaced values. There a token is one channel of one frame; here it is the mean level of a
patch, so that a window fits the same grid as with `mel-vq`.

Legend: B windows, T samples of a window, M bands, F frames, H W grid of patches, K values.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from seit.errors import DamagedError
from seit.tokenizers.mel import (
    FLOOR_DB,
    RANGE_DB,
    MelConfig,
    MelFrontEnd,
    SpectrogramTokenizer,
)

NUM_VALUES = 16


class DMelTokenizer(SpectrogramTokenizer):
    """Mean levels of spectrogram patches, rounded to 16 values 6.25 dB apart; needs no fit.

    ``codebook`` (16, 1) holds the centers of the sixteen parts of the level range, relative to its
    center and in units of 100 dB. Row 0 of a grid is the lowest frequency. :meth:`decode` returns
    spectrograms float32 (B, M, F) in dB.
    """

    name: ClassVar[str] = "dmel"

    def __init__(self, config: MelConfig, *, device: str | torch.device = "cpu") -> None:
        self.take_front_end(MelFrontEnd.unfitted(config).to(device))
        values = (torch.arange(NUM_VALUES, device=device) + 0.5) / NUM_VALUES - 0.5
        self.codebook = values[:, None]

    @property
    @override
    def grid(self) -> tuple[int, int]:
        return self.front_end.config.grid

    @override
    @torch.no_grad()
    def encode(self, waves: Tensor, /) -> Tensor:
        means_BHW = functional.avg_pool2d(
            self.front_end.levels(waves)[:, None], self.front_end.config.patch
        )[:, 0]
        shares = (means_BHW - FLOOR_DB) / RANGE_DB
        return (shares * NUM_VALUES).long().clamp(0, NUM_VALUES - 1)

    @override
    def decode_ids(self, tokens: Tensor, /) -> Tensor:
        shares_BHW = self.codebook[tokens, 0] + 0.5
        height, width = self.front_end.config.patch
        patches = shares_BHW.repeat_interleave(height, 1).repeat_interleave(width, 2)
        return patches * RANGE_DB + FLOOR_DB

    @override
    def tensors(self) -> dict[str, Tensor]:
        return {}

    @override
    def settings(self) -> dict[str, Any]:
        return {"front_end": self.front_end.settings()}

    @classmethod
    @override
    def restore(
        cls, codebook: Tensor, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> Self:
        try:
            tokenizer = cls(MelConfig.from_json(settings["front_end"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DamagedError(
                f"the settings of a {cls.name} tokenizer are invalid ({error})"
            ) from error
        if tensors or not torch.equal(codebook, tokenizer.codebook):
            raise DamagedError(f"a {cls.name} tokenizer holds other weights than its settings give")
        return tokenizer

    @override
    def to(self, device: str | torch.device) -> Self:
        return type(self)(self.front_end.config, device=device)
