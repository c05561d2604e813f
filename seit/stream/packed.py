"""Unpack packed samples in torch, on their device (`packed` codec of seit.shards).

Shape letters: N samples, b chosen ones, S bytes per packed sample, L tokens per sample, K codes.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.devices import triton_serves
from seit.errors import DamagedError
from seit.shards import planes, token_bits, unpack_rows as unpack_rows_numpy
from seit.stream.kernels import unpack_triton


def id_dtype(num_codes: int) -> torch.dtype:
    """Return the dtype of ids in torch: int16 if K ≤ 32,768, else int32."""
    return torch.int16 if token_bits(num_codes) <= 15 else torch.int32


def unpack(packed_NS: Tensor, *, length: int, num_codes: int) -> Tensor:
    """Unpack uint8 (N, S) into ids (N, L): int16 if K ≤ 32,768, else int32.

    Ids are not compared with K here; splits check them when they are loaded.
    """
    bits, dtype = token_bits(num_codes), id_dtype(num_codes)
    tokens_NL = torch.zeros(len(packed_NS), length, dtype=dtype, device=packed_NS.device)
    offset = 0
    for shift, width in planes(bits):
        per_byte = 8 // width
        num_bytes = -(-length // per_byte)
        source = packed_NS[:, offset : offset + num_bytes]
        for lane in range(per_byte):
            target = tokens_NL[:, lane::per_byte]
            values = (source[:, : target.shape[1]] >> (lane * width)) & ((1 << width) - 1)
            target |= values.to(dtype) << shift
        offset += num_bytes
    return tokens_NL


def unpack_rows(
    packed_NS: Tensor, rows: npt.NDArray[np.int64], *, length: int, num_codes: int
) -> Tensor:
    """Unpack the rows (b,) of uint8 (N, S), on its device: ids (b, L), as :func:`unpack` does.

    Uses compiled code on a CPU, and a Triton kernel on a CUDA device with Triton.

    Raises:
        DamagedError: an id is not below K; checked on a CPU only, to avoid a device sync.
    """
    device = packed_NS.device
    if device.type == "cpu":
        tokens = torch.empty(len(rows), length, dtype=id_dtype(num_codes))
        largest = unpack_rows_numpy(packed_NS.numpy(), rows, tokens.numpy(), num_codes=num_codes)
        if largest >= num_codes:
            raise DamagedError(
                f"found token id {largest} where ids are below {num_codes}; "
                "`seit verify` names the block"
            )
        return tokens
    rows_b = torch.from_numpy(rows).to(device, non_blocking=True)
    if triton_serves(device):
        return unpack_triton(packed_NS, length=length, num_codes=num_codes, rows=rows_b)
    return unpack(packed_NS[rows_b], length=length, num_codes=num_codes)
