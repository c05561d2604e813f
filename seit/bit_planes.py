"""Whole numbers of b bits, packed into planes of 8, 4, 2 and 1 bits.

A row of L numbers is the concatenation of its planes, lowest bits first: as many 8-bit planes as
fit into b, then one 4-bit, one 2-bit and one 1-bit plane for the remaining bits (10 bits = one
plane of 8 and one of 2). Inside a plane of width w each byte holds 8 // w consecutive numbers, the
first in the lowest bits; the last byte is padded with zeros. Each number is found with one shift
and one mask per plane in numpy, torch or on a GPU.

Token ids (:mod:`seit.shards.packed`) and weights of few bits (:mod:`seit.packed_weights`) are
stored in this way.

Legend: N samples, L tokens per sample, S bytes per sample, K codes.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


def token_bits(num_codes: int) -> int:
    """Return the bits per token for ids 0 … ``num_codes`` − 1: ceil(log2 K), at least 1."""
    return max(1, (num_codes - 1).bit_length())


def token_dtype(num_codes: int) -> np.dtype[np.unsignedinteger]:
    """Return the dtype of decoded ids: uint16, or uint32 if K > 65,536."""
    return np.dtype(np.uint16 if num_codes <= 1 << 16 else np.uint32)


def planes(bits: int) -> Iterator[tuple[int, int]]:
    """Yield ``(shift, width)`` of each plane of a ``bits``-bit token, lowest bits first."""
    shift = 0
    while bits - shift >= 8:
        yield shift, 8
        shift += 8
    for width in (4, 2, 1):
        if (bits - shift) & width:
            yield shift, width
            shift += width


def sample_bytes(length: int, bits: int) -> int:
    """Return the bytes of one packed sample of ``length`` tokens."""
    return sum(-(-length * width // 8) for _, width in planes(bits))


def pack(tokens_NL: npt.NDArray[np.unsignedinteger], bits: int) -> npt.NDArray[np.uint8]:
    """Pack ids (N, L), each below 2**bits, into uint8 (N, S)."""
    num_samples, length = tokens_NL.shape
    packed_NS = np.empty((num_samples, sample_bytes(length, bits)), dtype=np.uint8)
    offset = 0
    for shift, width in planes(bits):
        plane_NL = (tokens_NL >> tokens_NL.dtype.type(shift)).astype(np.uint8)
        per_byte = 8 // width
        num_bytes = -(-length // per_byte)
        target = packed_NS[:, offset : offset + num_bytes]
        if per_byte == 1:
            target[:] = plane_NL
        else:
            plane_NL &= np.uint8((1 << width) - 1)
            padded = np.zeros((num_samples, num_bytes * per_byte), dtype=np.uint8)
            padded[:, :length] = plane_NL
            target[:] = 0
            for lane in range(per_byte):
                target |= padded[:, lane::per_byte] << np.uint8(lane * width)
        offset += num_bytes
    return packed_NS


def unpack_reference(
    packed_NS: npt.NDArray[np.uint8], *, length: int, num_codes: int
) -> npt.NDArray[np.unsignedinteger]:
    """Unpack uint8 (N, S) into ids (N, L), in plain numpy: uint16, or uint32 if K > 65,536.

    Neither sizes nor ids are checked.
    """
    dtype = token_dtype(num_codes)
    tokens_NL = np.zeros((len(packed_NS), length), dtype=dtype)
    offset = 0
    for shift, width in planes(token_bits(num_codes)):
        per_byte = 8 // width
        num_bytes = -(-length // per_byte)
        source = packed_NS[:, offset : offset + num_bytes]
        mask = np.uint8((1 << width) - 1)
        for lane in range(per_byte):
            target = tokens_NL[:, lane::per_byte]
            values = (source[:, : target.shape[1]] >> np.uint8(lane * width)) & mask
            target |= values.astype(dtype) << dtype.type(shift)
        offset += num_bytes
    return tokens_NL
