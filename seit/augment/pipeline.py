"""Augmentation pipeline, from stored grids to the network's inputs.

Legend: B batch, H W grid, h w cropped grid, K codes, C codebook dim, L levels of a residual
tokenizer.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from seit.augment.base import Augmented, CropAndMix, sample_random, second_share
from seit.augment.color import color_adapt_
from seit.augment.config import AugmentConfig
from seit.augment.crop import center_crop
from seit.augment.erase import random_erase
from seit.augment.flip import random_flip
from seit.augment.geometry import Geometry, TokenWarper, random_warps
from seit.augment.masks import mask_bands, time_roll
from seit.augment.noise import add_noise_, channel_units, codebook_unit
from seit.augment.philox import Op
from seit.augment.quantize import nearest_ids
from seit.augment.random import SampleRandom
from seit.augment.swap import swap_squares
from seit.augment.synonyms import nearest_codes, replace_synonyms
from seit.errors import UsageError


class TokenAugment(CropAndMix):
    """Token grids → augmented embeddings, on the batch's device.

    The order of SeiT (arXiv 2303.11114): one of {synonyms, code swap, nothing} per sample; time
    roll; flip; look-up in the codebook and random resized crop, or both through TokenAdapt; one of
    {Emb-Noise, ColorAdapt, nothing}; erasing; masks; one of {CutMix, Mixup, nothing}. The order of
    SeiT++ (arXiv 2312.10105), with ``config.order`` `seitpp`: edits; look-up; Emb-Noise or
    ColorAdapt of the whole grid; then random resized crop and CutMix or Mixup, or TokenAdapt, which
    lifts and warps the recolored grid, mixes the lifted maps and reads tokens from them; erasing;
    masks. A sample's partner takes the same path before it is mixed in. Every choice is made per
    sample; the official code makes most of them once per batch. :meth:`forward` augments and
    :meth:`evaluate` does not, whatever ``training`` says. Only TokenAdapt synchronizes with the
    device, to learn how many samples it is for.

    Peak memory is about four times the batch's embedding, in float32, plus that of TokenAdapt.

    A grid of a residual tokenizer is (L·H, W), level l in rows l·H … (l + 1)·H − 1, and the
    embedding of a cell is the sum over its levels. Synonyms are found and drawn level by level,
    squares are swapped in all levels alike, and everything after the look-up is the same.

    Args:
        codebook: (K, C), or (L, K, C), floating point; kept as float32, as a buffer (L·K, C) that
            is not saved.
        grid: (H, W), or (L·H, W), of the stored grids.
        config: the augmentations.
        warper: the network that ``config.token_adapt`` names; not needed by :meth:`evaluate`.

    Raises:
        UsageError: the codebook is neither or does not fit the grid or the warper, or the crop is
            larger than the grid.
    """

    codebook: Tensor
    synonyms: Tensor
    mask: Tensor
    noise_units: Tensor
    """Units of Emb-Noise per channel, (C,) float32."""

    def __init__(
        self,
        codebook: Tensor,
        grid: tuple[int, int],
        config: AugmentConfig,
        *,
        warper: TokenWarper | None = None,
    ) -> None:
        self.levels = codebook.shape[0] if codebook.ndim == 3 else 1
        """Levels L."""
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
        if config.requantize and self.levels > 1:
            raise UsageError(
                f"augment.requantize is set for a codebook of {self.levels} levels, of whose sums "
                "no code is the nearest; leave it out"
            )
        super().__init__((grid[0] // self.levels, grid[1]), codebook.shape[-1], config)
        self.stored_grid = (grid[0], grid[1])
        """Size (L·H, W) of the stored grids."""
        codes = codebook.detach().to(torch.float32)
        K, by_level = codebook.shape[-2], codes.view(self.levels, *codebook.shape[-2:])
        self.unit = math.hypot(*map(codebook_unit, by_level))
        units = torch.stack([channel_units(level) for level in by_level]).square().sum(dim=0).sqrt()
        self.warper = warper
        self.geometry = Geometry(crop_scale=config.crop_scale, crop_ratio=config.crop_ratio)
        self.register_buffer("codebook", by_level.flatten(0, 1), persistent=False)
        self.register_buffer("noise_units", units.to(codes), persistent=False)
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
            partner: (B,) int64, 0 to B − 1, the samples to mix in and to take colors from; None for
                the mirrored batch.

        Returns:
            Inputs, both labels and their weights.

        Raises:
            UsageError: tokens have another grid, positions are not (B,), or a configured TokenAdapt
                network was not passed.
        """
        self.check_batch(tokens, self.stored_grid)
        random = sample_random(tokens, positions, seed, epoch)
        tokens = self._edit(self._rows_of_codebook(tokens), random)
        if self.config.order == "seit":
            x = self._recolor_(self._crop(tokens, random), random, partner)
            augmented = self.mix(self._mask(x, random), labels, random, partner)
        else:
            x = self._recolor_(self._embed(tokens), random, partner)
            augmented = self._crop_and_mix(x, labels, random, partner)
            augmented = augmented._replace(inputs=self._mask(augmented.inputs, random))
        if self.config.requantize:
            ids = nearest_ids(augmented.inputs, self.codebook)
            augmented = augmented._replace(inputs=self._embed(ids).contiguous())
        return augmented

    def evaluate(self, tokens: Tensor) -> Tensor:
        """Return the center of every grid, embedded, without randomness or noise.

        Args:
            tokens: (B, H, W) or (B, L·H, W), any integer dtype, 0 to K − 1.

        Returns:
            (B, C, h, w) float32.

        Raises:
            UsageError: tokens have another grid.
        """
        self.check_batch(tokens, self.stored_grid)
        cells = tokens.unflatten(1, (self.levels, -1))
        cropped = center_crop(cells, self.output_size).flatten(1, 2)
        return self._embed(self._rows_of_codebook(cropped)).contiguous()

    def embed(self, tokens: Tensor) -> Tensor:
        """Return whole grids, embedded: (B, C, H, W) float32.

        Args:
            tokens: (B, H, W) or (B, L·H, W), any integer dtype, 0 to K − 1.

        Raises:
            UsageError: tokens have another grid.
        """
        self.check_batch(tokens, self.stored_grid)
        return self._embed(self._rows_of_codebook(tokens))

    def _rows_of_codebook(self, tokens: Tensor) -> Tensor:
        """Convert ids (B, L·H, W) to int64 rows of ``self.codebook``: l·K is added on level l."""
        tokens = tokens.to(torch.int64)
        if self.levels == 1:
            return tokens
        num_codes = len(self.codebook) // self.levels
        starts = torch.arange(self.levels, device=tokens.device) * num_codes
        rows = starts.repeat_interleave(tokens.shape[1] // self.levels)
        return tokens + rows[:, None]

    def _edit(self, tokens: Tensor, random: SampleRandom) -> Tensor:
        """Apply one of {synonyms, code swap, nothing} per sample, then time roll and flip."""
        config = self.config
        u = random.uniform(Op.EDIT)
        synonym = u < config.synonym_prob
        swap = second_share(u, config.synonym_prob, config.swap_prob)
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
        """Apply code swap to (B, L·H, W), in all levels alike."""
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
        """Crop (B, H, W) int64 → (B, C, h, w), some of the samples through TokenAdapt."""
        warper = self._loaded_warper()
        if warper is None:
            return self.random_crop(self._embed(tokens), random)
        adapted = random.uniform(Op.ADAPT_GATE) < self.config.token_adapt_prob
        x = self.codebook.new_empty((len(tokens), self.channels, *self.output_size))
        plain, warped = (~adapted).nonzero().squeeze(1), adapted.nonzero().squeeze(1)
        if len(plain):
            x[plain] = self.random_crop(self._embed(tokens[plain]), random.select(plain))
        if len(warped):
            warps = self._random_warps(random.select(warped))
            x[warped] = self._embed(warper.warp_tokens(tokens[warped], warps, self.output_size))
        return x

    def _crop_and_mix(
        self, x: Tensor, labels: Tensor, random: SampleRandom, partner: Tensor | None
    ) -> Augmented:
        """Crop and mix (B, C, H, W) as SeiT++, or lift, warp, mix and read some samples."""
        warper = self._loaded_warper()
        augmented = self.mix(self.random_crop(x, random), labels, random, partner)
        if warper is None:
            return augmented
        adapted = random.uniform(Op.ADAPT_GATE) < self.config.token_adapt_prob
        if partner is None:
            partner = torch.arange(len(x) - 1, -1, -1, device=x.device)
        lifted = adapted.clone()
        lifted[partner[adapted]] = True  # the partners of adapted samples
        rows = lifted.nonzero().squeeze(1)
        if not len(rows):
            return augmented
        places = torch.arange(len(rows), device=x.device)
        place_of = torch.full((len(x),), -1, device=x.device)
        place_of[rows] = places
        others = place_of[partner[rows]]
        own = random.select(rows)
        maps = warper.warp_vectors(x[rows], self._random_warps(own), self.output_size)
        # Samples lifted only as partners may lack their own partners, and are not read.
        mixed = self.mix(maps, labels[rows], own, torch.where(others < 0, places, others))
        read = adapted[rows]
        tokens = warper.read_tokens(mixed.inputs[read])
        inputs, weight = augmented.inputs.clone(), augmented.weight.clone()
        inputs[rows[read]] = self._embed(tokens)
        weight[rows[read]] = mixed.weight[read]
        return augmented._replace(inputs=inputs, weight=weight)

    def _loaded_warper(self) -> TokenWarper | None:
        """Return the TokenAdapt network if ``config`` names one.

        Raises:
            UsageError: it does, and none was passed.
        """
        if self.warper is None and self.config.token_adapt:
            raise UsageError(
                f"token_adapt is {self.config.token_adapt!r} but the augmentation was built "
                "without the network; expected one: load it with load_tokenadapt and pass it as "
                "warper"
            )
        return self.warper

    def _random_warps(self, random: SampleRandom) -> Tensor:
        H, W = self.grid
        return random_warps(random, (2 * H, 2 * W), self.geometry)

    def _recolor_(self, x: Tensor, random: SampleRandom, partner: Tensor | None) -> Tensor:
        """Apply one of {Emb-Noise, ColorAdapt, nothing} per sample of (B, C, h, w), in place."""
        config = self.config
        if config.color_adapt_prob > 0:
            # First, so that no sample takes over the statistics of noise.
            u = random.uniform(Op.NOISE_GATE)
            selected = second_share(u, config.noise_prob, config.color_adapt_prob)
            x = color_adapt_(x, selected=selected, unit=self.unit, partner=partner)
        return add_noise_(
            x,
            random,
            prob=config.noise_prob,
            scale=config.noise_scale,
            std=config.noise_std,
            units=self.noise_units,
        )

    def _mask(self, x: Tensor, random: SampleRandom) -> Tensor:
        """Erase boxes of (B, C, h, w), and apply frequency and time masks."""
        config = self.config
        x = random_erase(x, random, prob=config.erase_prob, fill=self.mask)
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
        """Look up rows of the codebook (B, L·H, W) → (B, C, H, W) float32, channels-last."""
        vectors = F.embedding(tokens, self.codebook)
        if self.levels > 1:
            vectors = vectors.unflatten(1, (self.levels, -1)).sum(dim=1)
        return vectors.permute(0, 3, 1, 2)
