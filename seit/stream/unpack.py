"""Packed samples → ids, in torch, on whatever device they lie (`packed` codec of seit.shards).

Shape letters: B samples, S bytes per packed sample, L tokens per sample, K codes.
"""

import torch
from torch import Tensor

from seit.shards.packed import planes, token_bits


def unpack(packed_BS: Tensor, *, length: int, num_codes: int) -> Tensor:
    """Unpack uint8 (B, S) into ids (B, L): int16 where K ≤ 32,768, else int32.

    Ids are not compared with K; the splits check them when they are loaded.
    """
    bits = token_bits(num_codes)
    dtype = torch.int16 if bits <= 15 else torch.int32
    tokens_BL = torch.zeros(len(packed_BS), length, dtype=dtype, device=packed_BS.device)
    offset = 0
    for shift, width in planes(bits):
        per_byte = 8 // width
        num_bytes = -(-length // per_byte)
        source = packed_BS[:, offset : offset + num_bytes]
        for lane in range(per_byte):
            target = tokens_BL[:, lane::per_byte]
            values = (source[:, : target.shape[1]] >> (lane * width)) & ((1 << width) - 1)
            target |= values.to(dtype) << shift
        offset += num_bytes
    return tokens_BL
