"""Decode context streams on the device, one lane per sample.

A lane is a chain of dependent look-ups; a GPU is fast only because it runs thousands of lanes.
Large batches pay.

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
"""Lanes per program: one warp, so that few samples spread over many multiprocessors."""


@dataclass(frozen=True, eq=False)
class DeviceTables:
    """Tables of the `context` codec in the layout of the kernel.

    Attributes:
        num_codes: K.
        levels: levels of each group of the tree.
        bases: start of each group in a row.
        weights: int8 (2, K + 1, R), for the left and the upper neighbor; the latter has the bias.
        corner: int8 (K + 1, R0), for the upper right neighbor.
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
        words: uint16 or int16, words of the streams.
        bounds: int64 (B, 2), start and end of each stream in ``words``.
        grid: H, W.
        tables: tables of the store.

    Returns:
        Ids int16 (B, H, W), K at an unused leaf; and bool (B,), True if the stream was read exactly
        to its end. Nothing outside ``words`` is read, whatever the words and the bounds are; a
        stream that leaves them, or has less than two words, is incomplete.
    """
    from seit.stream.kernels.programs import decode_program

    count, (height, width) = len(bounds), grid
    # Position-major, so that lanes write adjacent memory, with a border of K for the neighbors.
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
            num_stages=1,  # loads of rows that the loop writes must not be hoisted
            enable_fp_fusion=True,
        )
    return ids[1:, :-1].permute(2, 0, 1).contiguous(), whole.bool()


class ContextDecoder:
    """Decodes context streams to ids on ``device``: with Triton on CUDA, else on the CPU.

    Args:
        tables: tables of the store.
        device: device of the ids.
    """

    def __init__(self, tables: ContextTables, *, device: torch.device) -> None:
        self.device = device
        decode_on = _decode_by_triton if triton_serves(device) else _decode_by_processor
        self._decode = decode_on(tables, device)

    def decode(self, words: Tensor, bounds: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Decode like :func:`decode_context_triton`, with ``words`` and ``bounds`` on any device.

        Streams must lie within ``words`` and have at least two words, as ensured by
        :func:`seit.shards.context.codec.split_streams`.
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
