"""Group masked model learning on code grids: blocks of tokens are masked or replaced.

After SiT (Atito et al., arXiv 2104.03602): whole blocks are removed, so that their content must be
inferred from semantics and not from neighboring cells. A grid of codes replaces the image, a mask
embedding the zeros, random codes the noise, and codes of another grid another image. Each sample
has its own choices, a function of (seed, epoch, position).

The paper's blocks of up to 0.3 of 224 pixels are up to 4.2 patches long. On a small grid 0.3 of a
side is a patch or less, and the rest of the patch would give the content away. Blocks there are
whole patches of the stem instead, up to a minimum number of them.

Legend: B batch, h w token grid, n = h · w cells, s cells along a patch's side, M rectangles of a
sample.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from seit.augment import Op, SampleRandom
from seit.errors import UsageError

_RESERVE = 1.5
"""Factor of drawn rectangles over the number that covers the share on average. At most one of 4000
samples then needs more at a share of 0.7, and 0.5 % of those of 7×7 grids at 0.9."""
_MOST_BY_RECTANGLES = 0.98
"""The last cells of a larger share would take very many rectangles."""


@dataclass(frozen=True, kw_only=True)
class CorruptionConfig:
    """Corruption of a grid; defaults are SiT's. Raises UsageError for values out of range."""

    kind: Literal["blocks", "tokens"] = "blocks"
    """`blocks` are rectangles, `tokens` independently chosen single cells, as a control."""
    share: float = 0.5
    """Minimum share of the cells that is masked or noised, above 0, at most 1."""
    block_max: float = 0.3
    """Largest side of a block as a fraction of the grid's side, above 0, at most 1."""
    block_patches: int = 2
    """Minimum length of the largest block side in patches of the stem, 0 or more. If `block_max` is
    less along an axis, blocks are 1 to this many whole patches long."""
    fill: Literal["mask", "noise", "mixed"] = "mask"
    """Replacement of the cells: the mask embedding, random codes, or one of the two per sample with
    equal probability."""
    alien_prob: float = 0.5
    """Share of samples filled with codes of another sample instead, 0–1."""
    alien_share: float = 0.3
    """Minimum share of the cells replaced in such a sample, above 0, at most 1."""

    def __post_init__(self) -> None:
        for name in ("share", "block_max", "alien_share"):
            if not 0 < getattr(self, name) <= 1:
                raise UsageError(
                    f"corruption.{name} is {getattr(self, name)}; expected above 0 and at most 1"
                )
        if self.block_patches < 0:
            raise UsageError(
                f"corruption.block_patches is {self.block_patches}; expected 0 or more"
            )
        if not 0 <= self.alien_prob <= 1:
            raise UsageError(f"corruption.alien_prob is {self.alien_prob}; expected 0 to 1")
        for name, known in (("kind", ("blocks", "tokens")), ("fill", ("mask", "noise", "mixed"))):
            if getattr(self, name) not in known:
                raise UsageError(
                    f"corruption.{name} is {getattr(self, name)!r}; expected {', '.join(known)}"
                )

    def axes(self, size: tuple[int, int], *, side: int) -> tuple["BlockAxis", "BlockAxis"]:
        """Return the block layout along the axes of a grid with patches of ``side`` cells.

        Axes shorter than a patch count in cells.
        """
        rows, columns = (self._axis(cells, side if cells >= side else 1) for cells in size)
        return rows, columns

    def _axis(self, cells: int, side: int) -> "BlockAxis":
        longest = max(1, int(self.block_max * cells + 1e-9))
        if longest >= self.block_patches * side:
            return BlockAxis(unit=1, length=cells, most=longest)
        patches = -(-cells // side)
        return BlockAxis(unit=side, length=patches, most=min(self.block_patches, patches))

    def num_blocks(self, size: tuple[int, int], *, side: int) -> int:
        """Return M, the number of blocks drawn per sample of a grid of ``size``."""
        covered = 1.0  # probability that a block covers a cell
        for axis in self.axes(size, side=side):
            lengths = range(1, axis.most + 1)
            covered *= sum(k / (axis.length + k - 1) for k in lengths) / axis.most
        if covered >= 1:
            return 1
        wanted = max(self.share, self.alien_share if self.alien_prob else 0)
        needed = math.log1p(-min(wanted, _MOST_BY_RECTANGLES)) / math.log1p(-covered)
        return math.ceil(_RESERVE * needed) + 8


class BlockAxis(NamedTuple):
    """Layout of blocks along an axis of a grid.

    Attributes:
        unit: cells per unit to which blocks are aligned: 1, or those of a patch.
        length: units of the axis; the last one may be cut off.
        most: units of the longest block.
    """

    unit: int
    length: int
    most: int


class Corruption(NamedTuple):
    """A batch of grids with replaced parts.

    Attributes:
        ids: (B, h, w) int64, 0 to K; K, the number of codes, stands for the mask embedding.
        changed: (B, h, w) bool: replaced cells, even if the new code equals the old one.
    """

    ids: Tensor
    changed: Tensor


def corrupt(
    ids_Bhw: Tensor,
    random: SampleRandom,
    config: CorruptionConfig,
    *,
    num_codes: int,
    side: int = 1,
    partner: Tensor | None = None,
) -> Corruption:
    """Remove blocks from each grid until its share is reached.

    Block sides are uniform from 1 to their limits, in cells or, on small grids, in patches. A block
    may overlap the border and is cut off there, so that all cells are equally likely. The fewest
    blocks, in drawing order, that reach the share are used; if all together do not reach it, free
    cells after a random one are added row by row. The number of single tokens is the share, rounded
    up.

    Differs from the official code, which handles samples one after the other with varying numbers
    of random calls: all samples are corrupted together.

    Args:
        ids_Bhw: (B, h, w) integers, 0 to K − 1.
        random: the samples' draws.
        config: settings of the corruption.
        num_codes: K.
        side: s, of the stem's patches.
        partner: (B,) int64, 0 to B − 1: the sample whose codes each receives; None for the mirrored
            batch (B − 1 − i), or in odd ones, whose middle would be its own partner, for the batch
            shifted by half. A single sample is masked or noised.

    Returns:
        The corrupted grids and the mask of changed cells.
    """
    ids_Bhw = ids_Bhw.to(torch.int64)
    h, w = ids_Bhw.shape[1:]
    choices_B2 = random.uniform(Op.CORRUPT_CHOICE, (2,))
    alien_B = choices_B2[:, 0] < config.alien_prob
    few, many = (math.ceil(share * h * w - 1e-9) for share in (config.alien_share, config.share))
    counts_B = torch.where(alien_B, few, many)
    if config.kind == "blocks":
        turns_Bn = _turns_of_blocks(random, (h, w), config, side=side)
    else:
        turns_Bn = random.uniform(Op.CORRUPT_ORDER, (h * w,))
    last_B1 = turns_Bn.sort(dim=1).values.gather(1, counts_B[:, None] - 1)
    changed_Bhw = (turns_Bn <= last_B1).view_as(ids_Bhw)

    fill = torch.full_like(ids_Bhw, num_codes)
    if config.fill != "mask":
        noise = random.randint(Op.CORRUPT_NOISE, num_codes, (h, w))
        is_noise = choices_B2[:, 1] < (1.0 if config.fill == "noise" else 0.5)
        fill = torch.where(is_noise[:, None, None], noise, fill)
    if partner is not None or len(ids_Bhw) > 1:
        other = _others(ids_Bhw) if partner is None else ids_Bhw.index_select(0, partner)
        fill = torch.where(alien_B[:, None, None], other, fill)
    return Corruption(torch.where(changed_Bhw, fill, ids_Bhw), changed_Bhw)


def _others(ids_Bhw: Tensor) -> Tensor:
    """Return for each sample the codes of another one, (B, h, w)."""
    count = len(ids_Bhw)
    return ids_Bhw.roll(count // 2, 0) if count % 2 else ids_Bhw.flip(0)


def _turns_of_blocks(
    random: SampleRandom, size: tuple[int, int], config: CorruptionConfig, *, side: int
) -> Tensor:
    """Return each cell's rank of removal, int64 (B, n).

    The index of the first block that covers it; for other cells a unique one from M on.
    """
    cells = size[0] * size[1]
    num_blocks = config.num_blocks(size, side=side)
    device = random.positions.device
    draws_BM4 = random.uniform(Op.CORRUPT_BLOCK, (num_blocks, 4))
    number_M1 = torch.arange(num_blocks, device=device)[:, None]
    numbers = []
    for number, axis in enumerate(config.axes(size, side=side)):
        length = (draws_BM4[..., number] * axis.most).to(torch.int64) + 1
        reach = axis.length + length - 1
        start = (draws_BM4[..., 2 + number] * reach).to(torch.int64) - length + 1
        place = torch.arange(size[number], device=device) // axis.unit - start[..., None]
        inside = (place >= 0) & (place < length[..., None])
        numbers.append(torch.where(inside, number_M1, num_blocks).to(torch.int16))
    # The block's index where both its rows and its columns are covered, else M.
    number_BMhw = torch.maximum(numbers[0][..., :, None], numbers[1][..., None, :])
    first_Bn = number_BMhw.amin(dim=1).flatten(1)
    start_B1 = random.randint(Op.CORRUPT_ORDER, cells)[:, None]
    after_Bn = num_blocks + (torch.arange(cells, device=device) - start_B1) % cells
    return torch.where(first_Bn < num_blocks, first_Bn, after_Bn)
