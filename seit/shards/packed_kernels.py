"""Unpacking compiled by numba; no type is written here, as numba infers them.

Shape letters: N samples, L tokens per sample, S bytes per sample.
"""

from numba import njit, uint64

from seit.shards.compiled import compiled, prefetch

_AHEAD = 4
_LINE_BYTES = 64


@compiled
def unpack_planes(packed_NS, rows, shifts, widths, spread, ids_NL):
    """Fill ``ids_NL`` (zeros) from the packed ``rows`` (N,); returns the largest id.

    ``spread`` (planes, 256, 8) holds, for each value of a byte of a narrow plane, the bits that it
    adds to the tokens in it.
    """
    length = ids_NL.shape[1]
    largest = ids_NL.dtype.type(0)
    flat, row_bytes = packed_NS.reshape(-1), packed_NS.shape[1]
    for sample in range(len(ids_NL)):
        if sample + _AHEAD < len(ids_NL):  # rows lie anywhere: have one on its way in time
            start = uint64(rows[sample + _AHEAD] * row_bytes)
            for byte in range(0, row_bytes, _LINE_BYTES):
                prefetch(flat, start + uint64(byte))
        ids, rest = ids_NL[sample], packed_NS[rows[sample]]
        for plane in range(len(shifts)):
            per_byte = 8 // widths[plane]
            whole = length // per_byte
            table = spread[plane]
            if per_byte == 1:
                shift = ids_NL.dtype.type(shifts[plane])
                for token in range(length):
                    ids[token] |= ids_NL.dtype.type(rest[token]) << shift
            elif per_byte == 2:
                _spread(ids, rest, table, whole, 2)
            elif per_byte == 4:
                _spread(ids, rest, table, whole, 4)
            else:
                _spread(ids, rest, table, whole, 8)
            for token in range(whole * per_byte, length):
                ids[token] |= table[rest[whole], token - whole * per_byte]
            rest = rest[-(-length // per_byte) :]
        for token in range(length):
            largest = max(largest, ids[token])
    return largest


@njit(inline="always")
def _spread(ids, packed, table, whole, per_byte):
    for byte in range(whole):
        value = packed[byte]
        for lane in range(per_byte):
            ids[per_byte * byte + lane] |= table[value, lane]
