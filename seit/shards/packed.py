"""The `packed` codec: every token in ceil(log2 K) bits, split into planes of 8, 4, 2 and 1 bits.

A sample of L tokens of b bits is the concatenation of its planes, lowest bits first: as many
8-bit planes as fit into b, then one 4-bit, one 2-bit and one 1-bit plane for the remaining bits
(10 bits = one plane of 8 and one of 2). Inside a plane of width w each byte holds 8 // w
consecutive tokens, the first in the lowest bits; the last byte is padded with zeros. Each token is
found with one shift and one mask per plane in numpy, torch or on a GPU.

Legend: N samples, L tokens per sample, S bytes per sample, K codes.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError

_WORTH_COMPILED = 1 << 15
"""Fewest tokens for which compiled code repays its loading time."""


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


def unpack(
    packed_NS: npt.NDArray[np.uint8], *, length: int, num_codes: int
) -> npt.NDArray[np.unsignedinteger]:
    """Unpack uint8 (N, S) into ids (N, L): uint16, or uint32 if K > 65,536.

    Raises:
        DamagedError: a row is not S bytes long, or an id is ``num_codes`` or larger.
    """
    bits = token_bits(num_codes)
    expected = sample_bytes(length, bits)
    if packed_NS.shape[1] != expected:
        raise DamagedError(
            f"a packed sample has {packed_NS.shape[1]} bytes where {length} tokens of {bits} bits "
            f"take {expected}; restore the shard from a copy"
        )
    if packed_NS.shape[0] * length < _WORTH_COMPILED:
        tokens_NL = unpack_reference(packed_NS, length=length, num_codes=num_codes)
        largest = int(tokens_NL.max(initial=0))
    else:
        tokens_NL = np.empty((len(packed_NS), length), dtype=token_dtype(num_codes))
        rows_N = np.arange(len(packed_NS))
        largest = unpack_rows(packed_NS, rows_N, tokens_NL, num_codes=num_codes)
    if largest >= num_codes:
        raise DamagedError(
            f"found token id {largest} where ids are below {num_codes}; "
            "restore the shard from a copy"
        )
    return tokens_NL


def unpack_reference(
    packed_NS: npt.NDArray[np.uint8], *, length: int, num_codes: int
) -> npt.NDArray[np.unsignedinteger]:
    """Unpack as :func:`unpack`, in plain numpy and without a check of the ids."""
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


def unpack_rows(
    packed_NS: npt.NDArray[np.uint8],
    rows_n: npt.NDArray[np.integer],
    ids_nL: npt.NDArray[np.integer],
    *,
    num_codes: int,
) -> int:
    """Unpack the rows ``rows_n`` of uint8 (N, S) into ``ids_nL``, whose dtype must fit K.

    Returns:
        The largest id, not compared with K; 0 if every bit pattern is an id.
    """
    from seit.shards.packed_kernels import unpack_planes

    packed_NS = np.ascontiguousarray(packed_NS)
    return int(unpack_planes(packed_NS, rows_n, *_plane_arrays(num_codes), ids_nL))


@lru_cache(maxsize=16)
def _plane_arrays(num_codes: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], bool]:
    """Return shifts and widths of the planes, and whether some bit patterns are not ids."""
    bits = token_bits(num_codes)
    shifts, widths = np.array(list(planes(bits)), dtype=np.int64).T.copy()
    return shifts, widths, num_codes < 1 << bits
