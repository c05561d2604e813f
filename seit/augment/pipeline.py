"""From stored grids to the network's inputs: the augmentations in their order.

Legend: B batch, H W grid, h w cropped grid, K codes, C channels (of tokens: codebook dim), L levels
of a residual tokenizer.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seit.augment.color import color_adapt_
from seit.augment.config import AugmentConfig
from seit.augment.crop import center_crop, random_crop_boxes, resample, resize_matrices
from seit.augment.cutmix import cutmix
from seit.augment.flip import random_flip
from seit.augment.geometry import Geometry, TokenWarper, random_warps
from seit.augment.masks import mask_bands, time_roll
from seit.augment.mixup import mixup
from seit.augment.noise import add_noise_, codebook_unit
from seit.augment.philox import Op, SampleRandom
from seit.augment.swap import swap_squares
from seit.augment.synonyms import nearest_codes, replace_synonyms
from seit.errors import UsageError


class Augmented(NamedTuple):
    """A training batch: two labels for each input, and how much each counts."""

    inputs: Tensor
    """(B, C, h, w) float32, contiguous."""
    labels: Tensor
    """(B,) int64, the samples' own labels."""
    partner_labels: Tensor
    """(B,) int64, the labels of what was pasted or blended in."""
    weight: Tensor
    """(B,) float32, 0–1: loss = weight · loss(labels) + (1 − weight) · loss(partner_labels)."""


class CropAndMix(nn.Module):
    """What tokens and pixels share: the crop's geometry, CutMix and Mixup with their labels."""

    def __init__(self, grid: tuple[int, int], channels: int, config: AugmentConfig) -> None:
        super().__init__()
        self.grid = (grid[0], grid[1])
        """(H, W), the cells of a sample before cropping."""
        self.config = config
        self.channels = channels
        """C, the channels of the inputs."""
        self.output_size = crop_size_of(grid, config.crop_size)
        """(h, w), the cells of the inputs."""

    def random_crop(self, x: Tensor, random: SampleRandom) -> Tensor:
        """(B, C, H, W) floating point → (B, C, h, w)."""
        config, (H, W), (h, w) = self.config, self.grid, self.output_size
        box = random_crop_boxes(random, self.grid, scale=config.crop_scale, ratio=config.crop_ratio)
        mode = config.interpolation
        rows = resize_matrices(box.top, box.height, in_size=H, out_size=h, mode=mode)
        columns = resize_matrices(box.left, box.width, in_size=W, out_size=w, mode=mode)
        return resample(x, rows, columns)

    def mix(
        self, x: Tensor, labels: Tensor, random: SampleRandom, partner: Tensor | None
    ) -> Augmented:
        """One of {CutMix, Mixup, nothing} per sample of (B, C, h, w), and the labels with it."""
        config = self.config
        inputs, weight, _ = cutmix(
            x, random, prob=config.cutmix_prob, alpha=config.cutmix_alpha, partner=partner
        )
        if config.mixup_prob > 0:
            u = random.uniform(Op.CUTMIX_GATE)
            selected = _second_share(u, config.cutmix_prob, config.mixup_prob)
            blended, own_share = mixup(
                x, random, alpha=config.mixup_alpha, selected=selected, partner=partner
            )
            inputs = torch.where(selected[:, None, None, None], blended, inputs)
            weight = torch.where(selected, own_share, weight)
        partner_labels = labels.flip(0) if partner is None else labels.index_select(0, partner)
        return Augmented(inputs, labels, partner_labels, weight)

    def check_batch(self, x: Tensor, expected: tuple[int, ...]) -> None:
        """Refuse a batch that is not (B, *expected) integers."""
        if x.shape[1:] != expected or x.is_floating_point():
            raise UsageError(
                f"the batch is {tuple(x.shape)} of {x.dtype}; expected (B, "
                f"{', '.join(map(str, expected))}) integers: build the augmentation for the grid "
                "of the store that is read"
            )


class TokenAugment(CropAndMix):
    """Token grids → augmented embeddings, on the batch's device.

    The order of SeiT and SeiT++ (arXiv 2303.11114, 2312.10105): one of {synonyms, code swap,
    nothing} per sample; time roll; flip; look-up in the codebook and random resized crop, or both
    through TokenAdapt; one of {Emb-Noise, ColorAdapt, nothing}; masks; one of {CutMix, Mixup,
    nothing}. Every choice is the sample's own; the official code makes most of them once per
    batch. Whether anything is augmented depends on which of :meth:`forward` and :meth:`evaluate`
    is called, never on ``training``. Only TokenAdapt waits for the device, to learn how many
    samples it is for.

    Holds about four times the batch's embedding, in float32, at its widest moment, and what
    TokenAdapt needs.

    Of a residual tokenizer a grid is (L·H, W), level l in rows l·H … (l + 1)·H − 1, and the
    embedding of a cell is the sum over its levels. Synonyms are found and drawn level by level,
    squares are swapped in all levels alike, and what comes after the look-up is the same.

    Args:
        codebook: (K, C), or (L, K, C), floating point; kept as float32, as a buffer (L·K, C) that
            is not saved.
        grid: (H, W), or (L·H, W): of the grids that come in.
        config: the augmentations.
        warper: the network that ``config.token_adapt`` names; :meth:`evaluate` does without.

    Raises:
        UsageError: for a codebook that is neither, or does not fit the grid or the warper, or a
            crop larger than the grid.
    """

    codebook: Tensor
    synonyms: Tensor
    mask: Tensor

    def __init__(
        self,
        codebook: Tensor,
        grid: tuple[int, int],
        config: AugmentConfig,
        *,
        warper: TokenWarper | None = None,
    ) -> None:
        self.levels = codebook.shape[0] if codebook.ndim == 3 else 1
        """L."""
        if codebook.ndim not in (2, 3) or not self.levels or grid[0] % self.levels:
            raise UsageError(
                f"the codebook is {tuple(codebook.shape)} for a grid of {grid[0]} × {grid[1]}; "
                "expected (K, C), or (levels, K, C) and rows that are a multiple of the levels"
            )
        if warper is not None and self.levels > 1:
            raise UsageError(
                f"TokenAdapt was passed for a codebook of {self.levels} levels; it serves one: "
                "leave token_adapt empty"
            )
        super().__init__((grid[0] // self.levels, grid[1]), codebook.shape[-1], config)
        self.stored_grid = (grid[0], grid[1])
        """(L·H, W), of the grids that come in."""
        codes = codebook.detach().to(torch.float32)
        K, by_level = codebook.shape[-2], codes.view(self.levels, *codebook.shape[-2:])
        self.noise_unit = math.hypot(*map(codebook_unit, by_level))
        self.warper = warper
        self.geometry = Geometry(crop_scale=config.crop_scale, crop_ratio=config.crop_ratio)
        self.register_buffer("codebook", by_level.flatten(0, 1), persistent=False)
        self.register_buffer("mask", by_level.mean(dim=1).sum(dim=0), persistent=False)
        if config.synonym_prob > 0 and K > 1:
            top = min(config.synonym_top, K - 1)
            tables = [
                nearest_codes(level, top=top) + number * K for number, level in enumerate(by_level)
            ]
            table = torch.cat(tables)
        else:
            table = torch.arange(self.levels * K, device=codes.device)[:, None]
        self.register_buffer("synonyms", table, persistent=False)

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
        """Augment a training batch.

        Args:
            tokens: (B, H, W) or (B, L·H, W), any integer dtype, 0 to K − 1.
            labels: (B,) int64.
            positions: (B,) int64, each sample's global position in the epoch's order.
            seed: 0 to 2⁶⁴ − 1.
            epoch: 0 to 2³² − 1.
            partner: (B,) int64, 0 to B − 1: with whom each sample is mixed, and whose colours it
                takes; the mirrored batch when None.

        Returns:
            Inputs, both labels and their weights.

        Raises:
            UsageError: for tokens of another grid, positions that are not (B,), or a configured
                TokenAdapt network that was not passed.
        """
        self.check_batch(tokens, self.stored_grid)
        random = sample_random(tokens, positions, seed, epoch)
        tokens = self._edit(self._rows_of_codebook(tokens), random)
        x = self._recolor_(self._crop(tokens, random), random, partner)
        return self.mix(self._mask(x, random), labels, random, partner)

    def evaluate(self, tokens: Tensor) -> Tensor:
        """The middle of every grid, embedded: nothing random, no noise.

        Args:
            tokens: (B, H, W) or (B, L·H, W), any integer dtype, 0 to K − 1.

        Returns:
            (B, C, h, w) float32.

        Raises:
            UsageError: for tokens of another grid.
        """
        self.check_batch(tokens, self.stored_grid)
        cells = tokens.unflatten(1, (self.levels, -1))
        cropped = center_crop(cells, self.output_size).flatten(1, 2)
        return self._embed(self._rows_of_codebook(cropped)).contiguous()

    def _rows_of_codebook(self, tokens: Tensor) -> Tensor:
        """Ids (B, L·H, W) → int64, with l·K added on level l: rows of ``self.codebook``."""
        tokens = tokens.to(torch.int64)
        if self.levels == 1:
            return tokens
        num_codes = len(self.codebook) // self.levels
        starts = torch.arange(self.levels, device=tokens.device) * num_codes
        rows = starts.repeat_interleave(tokens.shape[1] // self.levels)
        return tokens + rows[:, None]

    def _edit(self, tokens: Tensor, random: SampleRandom) -> Tensor:
        """One of {synonyms, code swap, nothing} per sample, then time roll and flip."""
        config = self.config
        u = random.uniform(Op.EDIT)
        synonym = u < config.synonym_prob
        swap = _second_share(u, config.synonym_prob, config.swap_prob)
        if config.synonym_prob > 0:
            tokens = replace_synonyms(
                tokens, self.synonyms, random, rate=config.synonym_rate, selected=synonym
            )
        if config.swap_prob > 0:
            tokens = self._swap(tokens, random, swap)
        if config.time_roll > 0:
            tokens = time_roll(tokens, random, max_share=config.time_roll)
        return random_flip(tokens, random, prob=config.flip_prob)

    def _swap(self, tokens: Tensor, random: SampleRandom, selected: Tensor) -> Tensor:
        """Code swap on (B, L·H, W), in all levels alike."""
        max_side = self.config.swap_max
        if self.levels == 1:
            return swap_squares(tokens, random, max_side=max_side, selected=selected)
        H, W = self.grid
        cells = torch.arange(H * W, device=tokens.device).view(1, H, W).expand(len(tokens), H, W)
        source = swap_squares(cells, random, max_side=max_side, selected=selected)
        by_level = tokens.view(len(tokens), self.levels, H * W)
        source = source.reshape(len(tokens), 1, H * W).expand_as(by_level)
        return by_level.gather(2, source).view_as(tokens)

    def _crop(self, tokens: Tensor, random: SampleRandom) -> Tensor:
        """(B, H, W) int64 → (B, C, h, w), for a share of the samples through TokenAdapt."""
        config = self.config
        if self.warper is None:
            if config.token_adapt:
                raise UsageError(
                    f"token_adapt is {config.token_adapt!r} but the augmentation was built without "
                    "the network; expected one: load it with load_tokenadapt and pass it as warper"
                )
            return self.random_crop(self._embed(tokens), random)
        adapted = random.uniform(Op.ADAPT_GATE) < config.token_adapt_prob
        x = self.codebook.new_empty((len(tokens), self.channels, *self.output_size))
        plain, warped = (~adapted).nonzero().squeeze(1), adapted.nonzero().squeeze(1)
        if len(plain):
            x[plain] = self.random_crop(self._embed(tokens[plain]), random.select(plain))
        if len(warped):
            H, W = self.grid
            warps = random_warps(random.select(warped), (2 * H, 2 * W), self.geometry)
            x[warped] = self._embed(
                self.warper.warp_tokens(tokens[warped], warps, self.output_size)
            )
        return x

    def _recolor_(self, x: Tensor, random: SampleRandom, partner: Tensor | None) -> Tensor:
        """One of {Emb-Noise, ColorAdapt, nothing} per sample of (B, C, h, w), in place."""
        config = self.config
        if config.color_adapt_prob > 0:
            # First, so that nobody takes over the statistics of noise.
            u = random.uniform(Op.NOISE_GATE)
            selected = _second_share(u, config.noise_prob, config.color_adapt_prob)
            x = color_adapt_(x, selected=selected, unit=self.noise_unit, partner=partner)
        return add_noise_(
            x,
            random,
            prob=config.noise_prob,
            scale=config.noise_scale,
            std=config.noise_std,
            unit=self.noise_unit,
        )

    def _mask(self, x: Tensor, random: SampleRandom) -> Tensor:
        """Frequency and time masks on (B, C, h, w)."""
        config = self.config
        if config.freq_masks == 0 and config.time_masks == 0:
            return x
        return mask_bands(
            x,
            random,
            fill=self.mask,
            freq_masks=config.freq_masks,
            freq_max=config.freq_mask_max,
            time_masks=config.time_masks,
            time_max=config.time_mask_max,
        )

    def _embed(self, tokens: Tensor) -> Tensor:
        """Rows of the codebook (B, L·H, W) → (B, C, H, W) float32, channels last in memory."""
        vectors = F.embedding(tokens, self.codebook)
        if self.levels > 1:
            vectors = vectors.unflatten(1, (self.levels, -1)).sum(dim=1)
        return vectors.permute(0, 3, 1, 2)


def _second_share(u: Tensor, first: float, second: float) -> Tensor:
    """(B,) bool: which samples meet the second of two operations that exclude each other."""
    return (u >= first) & (u < first + second)


def crop_size_of(grid: tuple[int, int], crop_size: int) -> tuple[int, int]:
    """Return rows and columns of what a network sees of a grid, by `AugmentConfig.crop_size`.

    Raises:
        UsageError: the grid is smaller.
    """
    H, W = grid
    if crop_size == 0:
        return max(1, round(H * 7 / 8)), max(1, round(W * 7 / 8))
    if crop_size > min(grid):
        raise UsageError(
            f"crop_size is {crop_size} for a grid of {H} × {W}; expected at most {min(grid)}, or "
            "0 for 7/8 of the grid: lower it"
        )
    return round(H * crop_size / min(grid)), round(W * crop_size / min(grid))


def sample_random(x: Tensor, positions: Tensor, seed: int, epoch: int) -> SampleRandom:
    """The draws of a batch's samples, on the device of the batch."""
    if positions.shape != x.shape[:1]:
        raise UsageError(
            f"positions are {tuple(positions.shape)} for a batch of {len(x)}; expected "
            f"({len(x)},): pass one global position per sample"
        )
    return SampleRandom(seed, epoch, positions.to(x.device, non_blocking=True))
