"""The `packed` codec: every token in ceil(log2 K) bits, in the planes of :mod:`seit.bit_planes`.

Legend: N samples, L tokens per sample, S bytes per sample, K codes.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from seit.bit_planes import (
    pack as pack,
    planes as planes,
    sample_bytes as sample_bytes,
    token_bits as token_bits,
    token_dtype as token_dtype,
    unpack_reference as unpack_reference,
)
from seit.errors import DamagedError

_WORTH_COMPILED = 1 << 15
"""Fewest tokens for which compiled code repays its loading time."""


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
