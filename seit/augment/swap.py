"""Code swap: exchange of two squares of a token grid.

Legend: B batch, H W grid, N candidates.
"""

import torch
from torch import Tensor

from seit.augment.philox import Op
from seit.augment.random import SampleRandom

NUM_CANDIDATES = 8
"""Candidate second positions per sample; one is too near with probability at most 0.35 for
squares up to a quarter of the grid, all of them with probability at most 2 in 10 000."""


def swap_squares(
    tokens: Tensor, random: SampleRandom, *, max_side: float, selected: Tensor | None = None
) -> Tensor:
    """Swap two squares of each grid, with side and places drawn per sample.

    SwapCode of SeiT (arXiv 2303.11114): the side is floor(min(H, W) · U(0, ``max_side``)), for the
    paper's 32 × 32 grid and 0.25 thus 0 to 7 tokens. The first corner is uniform over the places
    where the square fits. Of eight candidates for the second, drawn alike, the first whose
    Euclidean distance from the first corner exceeds the side is used; without one the grid is
    unchanged. Diagonal squares may still overlap: a shared cell then receives from the first, as if
    both were cut out and pasted back, the first one last.

    Args:
        tokens: (B, H, W) integers.
        random: the samples' draws.
        max_side: maximum side as a fraction of min(H, W), 0–0.5.
        selected: (B,) bool, the samples to edit; None for all.

    Returns:
        (B, H, W), of the same dtype.
    """
    H, W = tokens.shape[1:]
    device = tokens.device
    side = (random.uniform(Op.SWAP_SIDE) * (max_side * min(H, W))).to(torch.int64)
    places = torch.stack((H + 1 - side, W + 1 - side), dim=1)[:, None]
    corners = random.randint(Op.SWAP_PLACE, places, (1 + NUM_CANDIDATES, 2))
    first, candidates = corners[:, 0], corners[:, 1:]
    squared_distance = (candidates - first[:, None]).square().sum(dim=-1)
    far = squared_distance > side.square()[:, None]
    chosen = far.to(torch.uint8).argmax(dim=1)
    second = candidates[torch.arange(len(random), device=device), chosen]
    swapped = far.any(dim=1)
    if selected is not None:
        swapped &= selected
    side = torch.where(swapped, side, 0)

    cells = torch.arange(H * W, device=device).view(H, W)
    down, right = (second - first).unbind(1)
    shift = (down * W + right)[:, None, None]
    source = torch.where(_square(first, side, H, W), cells + shift, cells)
    source = torch.where(_square(second, side, H, W), cells - shift, source)
    return tokens.flatten(1).gather(1, source.flatten(1)).view_as(tokens)


def _square(corner: Tensor, side: Tensor, H: int, W: int) -> Tensor:
    """Return (B, H, W) bool, True in each square; ``corner`` (B, 2) and ``side`` (B,) are int64."""
    row = torch.arange(H, device=corner.device) - corner[:, :1]
    column = torch.arange(W, device=corner.device) - corner[:, 1:]
    inside_row = (row >= 0) & (row < side[:, None])
    inside_column = (column >= 0) & (column < side[:, None])
    return inside_row[:, :, None] & inside_column[:, None, :]
