"""Byte code of naver-ai/seit: small ids are one byte, others a byte 255 and the rest.

Legend: N samples, L tokens per sample.
"""

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError, UsageError

ESCAPE = 255
"""Byte before the remainder of an id that is not below it."""
ID_LIMIT = 2 * ESCAPE
"""Exclusive upper limit of ids."""
PIECE_TOKENS = 1 << 24
"""Tokens coded at once, which takes some 200 MB."""


def encode_escaped(
    tokens_NL: npt.NDArray[np.unsignedinteger],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Encode ids (N, L) as bytes; also return the offsets (N + 1,) of the samples in them.

    Raises:
        UsageError: an id is not below `ID_LIMIT`.
    """
    largest = int(tokens_NL.max(initial=0))
    if largest >= ID_LIMIT:
        raise UsageError(
            f"token id {largest} does not fit the files of naver-ai/seit, whose ids are below "
            f"{ID_LIMIT}; tokenize with at most {ID_LIMIT} codes to export"
        )
    escaped_NL = tokens_NL >= ESCAPE
    pairs_NL2 = np.empty((*tokens_NL.shape, 2), dtype=np.uint8)
    pairs_NL2[..., 0] = np.minimum(tokens_NL, ESCAPE)
    pairs_NL2[..., 1] = np.where(escaped_NL, tokens_NL, ESCAPE) - ESCAPE
    used_NL2 = np.ones(pairs_NL2.shape, dtype=np.bool_)
    used_NL2[..., 1] = escaped_NL
    sizes_N = tokens_NL.shape[1] + np.count_nonzero(escaped_NL, axis=1)
    return pairs_NL2[used_NL2], np.concatenate([[0], np.cumsum(sizes_N, dtype=np.int64)])


def decode_escaped(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    length: int,
    *,
    first_sample: int = 0,
) -> npt.NDArray[np.uint16]:
    """Decode the output of `encode_escaped`: ids (N, L), L being ``length``, at least 1.

    ``first_sample`` is the index of the first sample in messages, for a part of a split.

    Raises:
        DamagedError: the offsets are not those of samples of ``length`` tokens that fill ``data``,
            an id is cut off by the end of its sample, or is not below `ID_LIMIT`.
    """
    check_offsets(offsets, length, first_sample)
    if len(data) != offsets[-1]:
        raise DamagedError(f"found {len(data)} bytes; the offsets end at {offsets[-1]}")
    escapes = np.flatnonzero(data == ESCAPE)
    twice = escapes[1:][np.diff(escapes) == 1]
    twice = twice[~np.isin(twice, offsets)]
    if twice.size:
        sample = first_sample + int(np.searchsorted(offsets, twice[0], side="right")) - 1
        raise DamagedError(
            f"sample {sample} holds an id of {ID_LIMIT} or more (two bytes {ESCAPE} in a row), "
            "which this format cannot keep; make it again with fewer codes"
        )
    cut = np.flatnonzero(data[offsets[1:] - 1] == ESCAPE)
    if cut.size:
        sample = first_sample + int(cut[0])
        raise DamagedError(f"the last id of sample {sample} is cut off after its byte {ESCAPE}")
    counts_N = np.diff(offsets) - np.diff(np.searchsorted(escapes, offsets))
    wrong = np.flatnonzero(counts_N != length)
    if wrong.size:
        raise DamagedError(
            f"sample {first_sample + int(wrong[0])} decodes to {counts_N[wrong[0]]} tokens where "
            f"the grid takes {length}"
        )
    is_start = np.ones(len(data), dtype=np.bool_)
    is_start[escapes + 1] = False
    tokens = data[is_start].astype(np.uint16)
    tokens[tokens == ESCAPE] += data[escapes + 1]
    return tokens.reshape(-1, length)


def check_offsets(offsets: npt.NDArray[np.int64], length: int, first_sample: int) -> None:
    """Refuse offsets impossible for samples of ``length`` tokens, before reading there."""
    if offsets[0] != 0:
        raise DamagedError(f"the first offset is {offsets[0]}, not 0")
    sizes_N = np.diff(offsets)
    wrong = np.flatnonzero((sizes_N < length) | (sizes_N > 2 * length))
    if wrong.size:
        row = int(wrong[0])
        raise DamagedError(
            f"sample {first_sample + row} takes {sizes_N[row]} bytes by its offsets where "
            f"{length} tokens take {length} to {2 * length}"
        )
