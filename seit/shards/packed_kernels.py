"""Unpacking compiled by numba, which infers all types.

Legend: N samples, L tokens per sample, S bytes per sample.
"""

import numpy as np
from numba import njit, uint8, uint64

from seit.shards.jit import compiled, prefetch

_AHEAD = 4
_LINE_BYTES = 64


@compiled
def unpack_planes(packed_NS, rows, shifts, widths, finds_largest, ids_NL):
    """Fill ``ids_NL`` from the packed ``rows`` (N,).

    All loops vectorize: a narrow plane is first spread to one byte per token, by as many
    interleaved stores as it has tokens in a byte.

    Returns:
        The largest id if ``finds_largest``, else 0.
    """
    length = ids_NL.shape[1]
    as_id = ids_NL.dtype.type
    largest = as_id(0)
    flat, row_bytes = packed_NS.reshape(-1), packed_NS.shape[1]
    spread = np.empty(length + 7, np.uint8)
    for sample in range(len(ids_NL)):
        if sample + _AHEAD < len(ids_NL):  # rows are scattered: prefetch
            start = uint64(rows[sample + _AHEAD] * row_bytes)
            for byte in range(0, row_bytes, _LINE_BYTES):
                prefetch(flat, start + uint64(byte))
        ids, rest = ids_NL[sample], packed_NS[rows[sample]]
        for plane in range(len(shifts)):
            per_byte = 8 // widths[plane]
            num_bytes = -(-length // per_byte)
            values = spread
            if per_byte == 1:
                values = rest
            elif per_byte == 2:
                _spread(spread, rest, num_bytes, 2)
            elif per_byte == 4:
                _spread(spread, rest, num_bytes, 4)
            else:
                _spread(spread, rest, num_bytes, 8)
            shift = as_id(shifts[plane])
            if plane == 0:
                for token in range(length):
                    ids[token] = as_id(values[token]) << shift
            else:
                for token in range(length):
                    ids[token] |= as_id(values[token]) << shift
            rest = rest[num_bytes:]
        if finds_largest:
            for token in range(length):
                if ids[token] > largest:
                    largest = ids[token]
    return largest


@njit(inline="always")
def _spread(values, packed, num_bytes, per_byte):
    width = uint8(8 // per_byte)
    mask = uint8((1 << (8 // per_byte)) - 1)
    for byte in range(num_bytes):
        value = packed[byte]
        for lane in range(per_byte):
            values[per_byte * byte + lane] = (value >> uint8(lane * width)) & mask
