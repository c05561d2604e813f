"""Gather and unpack resident rows into ids in one pass over memory.

Shape letters: N resident samples, B batch, S bytes per packed sample, L tokens, K codes.
"""

import torch
from torch import Tensor

from seit.errors import UsageError
from seit.shards import planes, sample_bytes, token_bits

_MAX_BLOCK = 1024


def unpack_triton(
    packed_NS: Tensor, *, length: int, num_codes: int, rows: Tensor | None = None
) -> Tensor:
    """Unpack ``packed_NS[rows]`` like :func:`seit.stream.packed.unpack`, without a copy of them.

    Args:
        packed_NS: uint8 (N, S).
        length: L.
        num_codes: K.
        rows: int64 (B,), each 0 … N − 1, on the same device; all rows in order if None. They are
            not checked, since that would wait for the device: an invalid row reads as zeros.

    Returns:
        Ids (B, L), int16 if K ≤ 32,768, else int32.

    Raises:
        UsageError: ``packed_NS`` is not uint8 (N, S).
    """
    from seit.stream.kernels.programs import unpack_program

    bits = token_bits(num_codes)
    expected = sample_bytes(length, bits)
    if packed_NS.dtype != torch.uint8 or packed_NS.shape[1:] != (expected,):
        raise UsageError(
            f"found {packed_NS.dtype} {tuple(packed_NS.shape)} where {length} tokens of {bits} "
            f"bits are torch.uint8 (N, {expected}); pass packed samples of this length"
        )
    packed_NS = packed_NS.contiguous()
    count = len(packed_NS) if rows is None else len(rows)
    dtype = torch.int16 if bits <= 15 else torch.int32
    tokens_BL = torch.empty(count, length, dtype=dtype, device=packed_NS.device)
    block = min(_MAX_BLOCK, 1 << (length - 1).bit_length())
    with torch.cuda.device_of(packed_NS):
        unpack_program[(count * -(-length // block),)](
            packed_NS,
            None if rows is None else rows.contiguous(),
            tokens_BL,
            len(packed_NS),
            length,
            expected,
            PLANES=place_planes(length, bits),
            BLOCK=block,
            # Only because Triton 3.9 warns without it: there are no floats.
            enable_fp_fusion=True,
        )
    return tokens_BL


def place_planes(length: int, bits: int) -> tuple[tuple[int, int, int], ...]:
    """Return (shift, width, first byte) of each plane of a sample of L tokens."""
    placed, offset = [], 0
    for shift, width in planes(bits):
        placed.append((shift, width, offset))
        offset += -(-length * width // 8)
    return tuple(placed)
