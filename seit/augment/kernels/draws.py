"""Random draws in one launch, equal to those of :class:`seit.augment.philox.SampleRandom` in torch.

Shape letters: B batch, n draws of a sample.
"""

import torch
from torch import Tensor

from seit.augment.philox import SampleRandom

_BLOCK = 256


def draw_triton(random: SampleRandom, op: int, count: int, *, dtype: torch.dtype) -> Tensor:
    """The first ``count`` draws of an operation for each sample of ``random``, by Triton.

    Args:
        random: the samples; its positions tell the device.
        op: the operation.
        count: n.
        dtype: int64 for words, 0 to 2³² − 1; float32 for uniform numbers in [0, 1).

    Returns:
        (B, n), bit for bit what torch draws.
    """
    from seit.augment.kernels.programs.philox import draw_program

    positions = random.positions.contiguous()
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
                *map(signed_word, random.key),
                op,
                UNIFORM=dtype == torch.float32,
                BLOCK=_BLOCK,
                enable_fp_fusion=False,
            )
    return out


def signed_word(word: int) -> int:
    """The same 32 bits as a signed integer, so that every key has the same type in Triton."""
    return word - (1 << 32) if word >> 31 else word
