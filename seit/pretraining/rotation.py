"""Rotation task: grids turned by quarters, with the turn as the label.

Token grids do not turn like images: a tokenizer need not map a turned patch to a turned code, so a
grid turned cell by cell is not the grid of any image and would be recognized by that. They are
turned by TokenAdapt (see `seit.models.tokenadapt`) instead, upright ones included, so that the
network's artifacts give nothing away.

Legend: B batch, H W token grid, h w turned grid.
"""

import torch
from torch import Tensor

from seit.augment import Op, SampleRandom, TokenWarper
from seit.errors import UsageError

NUM_TURNS = 4
"""0, 90, 180 and 270 degrees."""


def draw_quarter_turns(random: SampleRandom) -> Tensor:
    """Draw each sample's turn, int64 (B,): 0 to 3 quarters, all equally likely."""
    return random.randint(Op.ROTATE, NUM_TURNS)


def quarter_warps(quarter_turns_B: Tensor) -> Tensor:
    """Return counterclockwise warps (B, 2, 3) float32, as in ``torch.rot90``."""
    turns = quarter_turns_B % NUM_TURNS
    # Exactly 0 and ±1, without copying a table to the device.
    cos, sin = (1 - turns) * (1 - turns % 2), (2 - turns) * (turns % 2)
    zero = torch.zeros_like(turns)
    warps = torch.stack((cos, -sin, zero, sin, cos, zero), dim=1)
    return warps.view(-1, 2, 3).to(torch.float32)


def rotate(
    tokens: Tensor, quarter_turns_B: Tensor, warper: TokenWarper, size: tuple[int, int]
) -> Tensor:
    """Return the tokens of the turned images, as predicted by a network.

    Args:
        tokens: (B, H, W) int64, 0 to K − 1, H = W.
        quarter_turns_B: (B,) int64, counterclockwise.
        warper: trained TokenAdapt network.
        size: (h, w), h = w.

    Returns:
        (B, h, w) int64, 0 to K − 1.

    Raises:
        UsageError: the grid is not square.
    """
    if tokens.shape[1] != tokens.shape[2] or size[0] != size[1]:
        raise UsageError(
            f"grids of {tokens.shape[1]} × {tokens.shape[2]} cannot be turned to {size[0]} × "
            f"{size[1]}; expected square ones: leave the task rotation out of sit.tasks"
        )
    return warper.warp_tokens(tokens, quarter_warps(quarter_turns_B), size)
