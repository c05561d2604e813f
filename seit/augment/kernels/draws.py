"""Random draws in one launch, bit for bit those of :class:`seit.augment.random.SampleRandom`.

Legend: B batch, n draws of a sample.
"""

import torch
from torch import Tensor

_BLOCK = 256


def draw_triton(
    positions: Tensor, key: tuple[int, int], op: int, *, count: int, dtype: torch.dtype
) -> Tensor:
    """Draw the first ``count`` numbers of an operation for each sample, with Triton.

    Args:
        positions: (B,) int64, global positions of the samples, on the device of the draws.
        key: the two words of Philox's key, each 0 to 2³² − 1.
        op: the operation.
        count: n.
        dtype: int64 for words, 0 to 2³² − 1; float32 for uniform numbers in [0, 1).

    Returns:
        (B, n), bit for bit as drawn by torch.
    """
    from seit.augment.kernels.programs.philox import draw_program

    positions = positions.contiguous()
    out = torch.empty((len(positions), count), dtype=dtype, device=positions.device)
    per_sample = -(-count // 4)
    total = len(positions) * per_sample
    if total:
        with torch.cuda.device_of(positions):
            draw_program[(-(-total // _BLOCK),)](
                positions,
                out,
                total,
                per_sample,
                count,
                *map(signed_word, key),
                op,
                UNIFORM=dtype == torch.float32,
                BLOCK=_BLOCK,
                enable_fp_fusion=False,
            )
    return out


def signed_word(word: int) -> int:
    """Return the same 32 bits as a signed integer, so that keys have one type in Triton."""
    return word - (1 << 32) if word >> 31 else word
