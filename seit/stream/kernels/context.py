"""Context streams → ids on the device: one lane per sample.

What a lane does is a chain of look-ups, each of which needs the one before; a GPU is quick at it
only because it holds thousands of lanes. Large batches pay.

Shape letters: B batch, H W grid, K codes, R entries of a row of the tables, R0 those
of the first group of levels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seit.devices import triton_serves
from seit.shards import MAX_SCORE, ContextTables

_LANES = 32
"""Of a program: one warp, so that few samples are spread over many multiprocessors."""


@dataclass(frozen=True, eq=False)
class DeviceTables:
    """The tables of the `context` codec as the kernel reads them.

    Attributes:
        num_codes: K.
        levels: levels of each group of the tree.
        bases: where each group begins in a row.
        weights: int8 (2, K + 1, R), of the left and the upper neighbour; the bias is in the latter.
        corner: int8 (K + 1, R0), of the upper right neighbour.
        squash: int16 (769,), the probability of turn 0 for each sum of weights from −384 on.
        codes: int16 (leaves,), the code of each leaf, or K.
    """

    num_codes: int
    levels: tuple[int, ...]
    bases: tuple[int, ...]
    weights: Tensor
    corner: Tensor
    squash: Tensor
    codes: Tensor

    @classmethod
    def from_tables(cls, tables: ContextTables, device: torch.device) -> "DeviceTables":
        """Copy ``tables`` to ``device``."""
        scores = np.clip(np.arange(-3 * 128, 3 * 128 + 1), -MAX_SCORE, MAX_SCORE)
        return cls(
            num_codes=tables.num_codes,
            levels=tables.shape.levels,
            bases=tables.shape.bases,
            weights=torch.from_numpy(tables.folded).to(device),
            corner=torch.from_numpy(tables.corner).to(device),
            squash=torch.from_numpy(tables.squash[scores + MAX_SCORE].view(np.int16)).to(device),
            codes=torch.from_numpy(tables.codes.view(np.int16)).to(device),
        )


def decode_context_triton(
    words: Tensor, bounds: Tensor, grid: tuple[int, int], tables: DeviceTables
) -> tuple[Tensor, Tensor]:
    """Decode the streams of B samples, all on the device of ``tables``.

    Args:
        words: uint16 or int16, the streams' words.
        bounds: int64 (B, 2), where each stream begins and ends in ``words``.
        grid: H, W.
        tables: of the store.

    Returns:
        Ids int16 (B, H, W), K where a stream leads to an unused leaf; and bool (B,), whether the
        stream was read to its end and left nothing over. Nothing outside ``words`` is read,
        whatever the words and the bounds are; a stream that leaves them, or has less than two
        words, is not whole.
    """
    from seit.stream.kernels.programs import decode_program

    count, (height, width) = len(bounds), grid
    # Position-major, so that lanes write side by side, with a border of K for the neighbours.
    ids = torch.full(
        (height + 1, width + 1, count), tables.num_codes, dtype=torch.int16, device=words.device
    )
    whole = torch.empty(count, dtype=torch.int8, device=words.device)
    with torch.cuda.device_of(words):
        decode_program[(-(-count // _LANES),)](
            words.contiguous().view(torch.int16),
            bounds.contiguous(),
            ids,
            whole,
            tables.weights,
            tables.corner,
            tables.squash,
            tables.codes,
            count,
            len(words),
            height,
            width,
            tables.num_codes,
            tables.weights.shape[2],
            LEVELS=tables.levels,
            MOST_LEVELS=max(tables.levels),
            BASES=tables.bases,
            BLOCK=_LANES,
            num_warps=1,
            num_stages=1,  # loads of rows that the loop writes must not be moved ahead
            enable_fp_fusion=True,
        )
    return ids[1:, :-1].permute(2, 0, 1).contiguous(), whole.bool()


class ContextDecoder:
    """Decode context streams to ids on ``device``: by Triton on CUDA, else on the processor.

    Args:
        tables: of the store.
        device: where the ids are wanted.
    """

    def __init__(self, tables: ContextTables, *, device: torch.device) -> None:
        self.device = device
        decode_on = _decode_by_triton if triton_serves(device) else _decode_by_processor
        self._decode = decode_on(tables, device)

    def decode(self, words: Tensor, bounds: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """As :func:`decode_context_triton`, of ``words`` and ``bounds`` on any device.

        Streams must lie within ``words`` and have two words at least, as
        :func:`seit.shards.context.codec.split_streams` makes sure.
        """
        return self._decode(words, bounds, grid)


_Decode = Callable[[Tensor, Tensor, tuple[int, int]], tuple[Tensor, Tensor]]


def _decode_by_triton(tables: ContextTables, device: torch.device) -> _Decode:
    on_device = DeviceTables.from_tables(tables, device)

    def decode(words: Tensor, bounds: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        return decode_context_triton(words.to(device), bounds.to(device), grid, on_device)

    return decode


def _decode_by_processor(tables: ContextTables, device: torch.device) -> _Decode:
    from seit.shards import Coder

    coder = Coder(tables)

    def decode(words: Tensor, bounds: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        ids, whole = coder.decode(
            words.cpu().view(torch.int16).numpy().view(np.uint16), bounds.cpu().numpy(), grid
        )
        return torch.from_numpy(ids.view(np.int16)).to(device), torch.from_numpy(whole).to(device)

    return decode
