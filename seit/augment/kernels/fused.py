"""Token augmentation in a few kernels, one of which does look-up, crop, noise, blanks and mixing.

Legend: N resident samples, B batch, S bytes per packed sample, H W grid, h w cropped grid,
K codes, C codebook dim.
"""

import logging
import math
from dataclasses import fields

import torch
from torch import Tensor

from seit.augment.base import Augmented, sample_random
from seit.augment.config import AugmentConfig
from seit.augment.geometry import TokenWarper
from seit.augment.kernels.edit import edit_triton, edits_ids
from seit.augment.kernels.embed import fused_embed
from seit.augment.kernels.plan import draw_plan_triton
from seit.augment.kernels.tokens import TokenSource
from seit.augment.pipeline import TokenAugment
from seit.augment.random import SampleRandom
from seit.devices import triton_serves
from seit.stream import unpack, unpack_triton

_FUSED = frozenset({
    "crop_size", "crop_scale", "crop_ratio", "interpolation", "synonym_prob", "synonym_rate",
    "synonym_top", "swap_prob", "swap_max", "time_roll", "flip_prob", "noise_prob", "noise_scale",
    "noise_std", "erase_prob", "freq_masks", "freq_mask_max", "time_masks", "time_mask_max",
    "cutmix_prob", "cutmix_alpha", "mixup_prob", "mixup_alpha",
})  # fmt: skip
"""Settings that the kernels support."""
_DETAILS = frozenset({"token_adapt_prob"})
"""Settings without effect if their operation is off. All others must have their defaults, which
are off."""
_LOG = logging.getLogger(__name__)


class FusedAugment(TokenAugment):
    """:class:`TokenAugment` in one pass over its output, on CUDA devices that Triton supports.

    The same draws and, up to rounding, the same inputs. A batch takes three launches for its plan,
    one to edit (and unpack) ids if ``config`` edits any, and one for the rest, which unpacks
    unedited ids. On other devices, and if ``config`` has an operation that the kernels lack (which
    is logged once), everything runs in torch; ``dtype`` and ``channels_last`` always apply.

    Args:
        codebook: (K, C), or (L, K, C), floating point; kept as float32, as a buffer that is not
            saved. Nothing is fused for L levels.
        grid: (H, W), or (L·H, W).
        config: the augmentations.
        warper: the network that ``config.token_adapt`` names; nothing is fused with one.
        dtype: dtype of the inputs: float32, bfloat16 or float16.
        channels_last: whether the inputs are channels-last, as convolutions prefer.

    Raises:
        UsageError: as for :class:`TokenAugment`.
    """

    def __init__(
        self,
        codebook: Tensor,
        grid: tuple[int, int],
        config: AugmentConfig,
        *,
        warper: TokenWarper | None = None,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
    ) -> None:
        super().__init__(codebook, grid, config, warper=warper)
        self.dtype = dtype
        self.channels_last = channels_last
        self._unfused = _unfused_settings(config)
        if self.levels > 1:
            self._unfused = (*self._unfused, f"codebooks of {self.levels} levels")
        self._is_said = False

    def forward(
        self,
        tokens: Tensor,
        labels: Tensor,
        *,
        positions: Tensor,
        seed: int,
        epoch: int,
        partner: Tensor | None = None,
    ) -> Augmented:
        """Augment as :meth:`TokenAugment.forward` does, to ``dtype`` and the memory format."""
        if not self._fuses(tokens.device):
            augmented = super().forward(
                tokens, labels, positions=positions, seed=seed, epoch=epoch, partner=partner
            )
            return augmented._replace(inputs=self._lay_out(augmented.inputs))
        self.check_batch(tokens, self.grid)
        random = sample_random(tokens, positions, seed, epoch)
        return self._embed_fused(tokens, None, labels, random, partner)

    def augment_rows(
        self,
        packed_NS: Tensor,
        rows: Tensor,
        labels: Tensor,
        *,
        positions: Tensor,
        seed: int,
        epoch: int,
        partner: Tensor | None = None,
    ) -> Augmented:
        """Augment rows of a resident split as :meth:`forward` does, unpacked inside the kernels.

        If nothing is fused, they are unpacked first.

        Args:
            packed_NS: uint8 (N, S), on the device.
            rows: (B,) int64, each 0 … N − 1, on the device.
            labels: (B,) int64.
            positions: (B,) int64, each sample's global position in the epoch's order.
            seed: 0 to 2⁶⁴ − 1.
            epoch: 0 to 2³² − 1.
            partner: (B,) int64, 0 to B − 1; None for the mirrored batch.

        Returns:
            Inputs, both labels and their weights.

        Raises:
            UsageError: packed samples have another size, or positions are not (B,).
        """
        if not self._fuses(packed_NS.device):
            tokens = self._unpack(packed_NS, rows)
            augmented: Augmented = self(
                tokens, labels, positions=positions, seed=seed, epoch=epoch, partner=partner
            )
            return augmented
        random = sample_random(rows, positions, seed, epoch)
        return self._embed_fused(packed_NS, rows, labels, random, partner)

    def evaluate(self, tokens: Tensor) -> Tensor:
        """Embed as :meth:`TokenAugment.evaluate` does, to ``dtype`` and the memory format."""
        return self._lay_out(super().evaluate(tokens))

    def embed(self, tokens: Tensor) -> Tensor:
        """Embed as :meth:`TokenAugment.embed` does, to ``dtype`` and the memory format."""
        return self._lay_out(super().embed(tokens))

    def _fuses(self, device: torch.device) -> bool:
        if not triton_serves(device):
            return False
        if self._unfused and not self._is_said:
            self._is_said = True
            _LOG.warning(
                "augmentation is not fused, and slower, since the kernels do not do %s",
                ", ".join(self._unfused),
            )
        return not self._unfused

    def _embed_fused(
        self,
        tokens: Tensor,
        rows: Tensor | None,
        labels: Tensor,
        random: SampleRandom,
        partner: Tensor | None,
    ) -> Augmented:
        if edits_ids(self.config):
            source = TokenSource.of(
                tokens,
                rows,
                num_samples=len(random),
                grid=self.grid,
                num_codes=len(self.codebook),
            )
            tokens, rows = edit_triton(source, self.synonyms, random, self.config), None
        plan = draw_plan_triton(
            random,
            self.config,
            grid=self.grid,
            size=self.output_size,
            num_channels=self.channels,
            units=self.noise_units,
            partner=partner,
        )
        inputs = fused_embed(
            tokens,
            self.codebook,
            plan,
            fill=self.mask,
            grid=self.grid,
            size=self.output_size,
            rows=rows,
            mode=self.config.interpolation,
            dtype=self.dtype,
            channels_last=self.channels_last,
        )
        partner_labels = labels.flip(0) if partner is None else labels.index_select(0, partner)
        return Augmented(inputs, labels, partner_labels, plan.weight)

    def _unpack(self, packed_NS: Tensor, rows: Tensor) -> Tensor:
        length, num_codes = math.prod(self.stored_grid), len(self.codebook) // self.levels
        if triton_serves(packed_NS.device):
            ids = unpack_triton(packed_NS, length=length, num_codes=num_codes, rows=rows)
        else:
            ids = unpack(packed_NS[rows], length=length, num_codes=num_codes)
        return ids.view(-1, *self.stored_grid)

    def _lay_out(self, inputs: Tensor) -> Tensor:
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return inputs.to(self.dtype, memory_format=layout)


def _unfused_settings(config: AugmentConfig) -> tuple[str, ...]:
    """Return the settings of ``config`` that the kernels do not support, as ``name = value``."""
    return tuple(
        f"{field.name} = {getattr(config, field.name)!r}"
        for field in fields(config)
        if field.name not in _FUSED | _DETAILS and getattr(config, field.name) != field.default
    )
