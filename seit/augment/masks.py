"""Frequency masks, time masks and time roll, for grids of spectrograms.

Rows are frequency, columns are time. After SpecAugment (Park et al., arXiv 1904.08779).

Legend: B batch, C codebook dim, H W grid, h w cropped grid, M masks.
"""

import torch
from torch import Tensor

from seit.augment.philox import Op
from seit.augment.random import SampleRandom


def random_bands(
    random: SampleRandom, op: Op, size: int, *, num_masks: int, max_share: float
) -> tuple[Tensor, Tensor]:
    """Draw bands of an axis for each sample.

    The width of each band is uniform in 0 to ⌊``max_share`` · ``size``⌋ cells, and its place
    uniform where it fits; bands may overlap.

    Args:
        random: the samples' draws.
        op: operation of the draws.
        size: cells of the axis.
        num_masks: M, bands per sample.
        max_share: maximum width of a band as a fraction of the axis, 0–1.

    Returns:
        First cells (B, M) int64, and the ends, excluded.
    """
    shape = (num_masks, 2)
    width = random.randint(op, int(max_share * size) + 1, shape)[..., 0]
    start = random.randint(op, size + 1 - width[..., None], shape)[..., 1]
    return start, start + width


def mask_bands(
    x: Tensor,
    random: SampleRandom,
    *,
    fill: Tensor,
    freq_masks: int,
    freq_max: float,
    time_masks: int,
    time_max: float,
) -> Tensor:
    """Fill bands of rows and columns, drawn per sample, with ``fill``.

    SpecAugment masks with 0 on spectrograms whose mean is 0. For embedded tokens ``fill`` should
    therefore be the mean of the codebook.

    Args:
        x: (B, C, h, w).
        random: the samples' draws.
        fill: (C,), the embedding of a masked cell.
        freq_masks: bands of rows.
        freq_max: maximum width as a fraction of h, 0–1.
        time_masks: bands of columns.
        time_max: maximum width as a fraction of w, 0–1.

    Returns:
        (B, C, h, w).
    """
    h, w = x.shape[2:]
    row_bands = random_bands(random, Op.FREQ_MASK, h, num_masks=freq_masks, max_share=freq_max)
    column_bands = random_bands(random, Op.TIME_MASK, w, num_masks=time_masks, max_share=time_max)
    rows, columns = _covered(*row_bands, h), _covered(*column_bands, w)
    covered = rows[:, None, :, None] | columns[:, None, None, :]
    return torch.where(covered, fill[:, None, None], x)


def _covered(start: Tensor, end: Tensor, size: int) -> Tensor:
    """Return the cells (B, size) of an axis that any of the bands (B, M) covers."""
    cells = torch.arange(size, device=start.device)
    return ((cells >= start[..., None]) & (cells < end[..., None])).any(dim=1)


def time_roll(tokens: Tensor, random: SampleRandom, *, max_share: float) -> Tensor:
    """Roll each grid along time, circularly.

    Args:
        tokens: (B, H, W) integers.
        random: the samples' draws.
        max_share: maximum shift either way as a fraction of W, 0–0.5, uniform over whole columns.

    Returns:
        (B, H, W), of the same dtype.
    """
    W = tokens.shape[2]
    most = int(max_share * W)
    shift = random.randint(Op.TIME_ROLL, 2 * most + 1) - most
    columns = (torch.arange(W, device=tokens.device) - shift[:, None]) % W
    return tokens.gather(2, columns[:, None].expand_as(tokens))
