"""Reading of a split: its number of samples, its ids block by block, its labels.

Legend: N samples, n of a block, L tokens per sample, H W grid (L = H·W).
"""

import re
from array import array
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError, UsageError
from seit.shards import BLOCK_SAMPLES, TokenLayout
from seit.stores.official.escape import PIECE_TOKENS, check_offsets, decode_escaped
from seit.stores.official.files import OfficialSplit
from seit.stores.official.reader import Unfolded, explained_reads, read_npy_header

MAX_UNNAMED_CLASSES = 1 << 20
"""Limit on labels without class names; a larger one is treated as an error."""
_LABEL = re.compile(rb"(-?[0-9]{1,10})\s*")
_LABEL_LINE_BYTES = 64


def block_samples(layout: TokenLayout) -> int:
    """Return the samples per block, fewer for large grids to bound the memory of a block."""
    return max(1, min(BLOCK_SAMPLES, PIECE_TOKENS // layout.length))


def count_samples(path: Path) -> int:
    """Return the number of samples according to the header of an index.

    Raises:
        UsageError: it is not an index.
        DamagedError: the gzip is damaged.
    """
    with Unfolded(path) as index:
        return _read_index_header(index)[0]


def _read_index_header(index: Unfolded) -> tuple[int, np.dtype[Any]]:
    """Return the number of samples of an index and the dtype of its offsets, from its header."""
    shape, _, dtype = read_npy_header(index, index.path)
    if dtype.kind not in "iu" or len(shape) != 1 or shape[0] < 1:
        raise UsageError(
            f"{index.path} holds {dtype} {shape} where offsets, one integer a sample and one for "
            "the end, belong"
        )
    return shape[0] - 1, dtype


def decoded_blocks(
    split: OfficialSplit, layout: TokenLayout
) -> Generator[npt.NDArray[np.unsignedinteger], None, None]:
    """Yield the ids (n, H, W) of a split, block by block, checking that its files end with them.

    Raises:
        UsageError: the index is invalid.
        DamagedError: a file is damaged, or an id is not below K.
    """
    step = block_samples(layout)
    with Unfolded(split.index) as index, Unfolded(split.data) as data:
        count, dtype = _read_index_header(index)
        end = np.frombuffer(index.read(dtype.itemsize), dtype=dtype).astype(np.int64)
        if end[0] != 0:
            raise DamagedError(f"{split.index} begins with the offset {end[0]}, not with 0")
        for first in range(0, count, step):
            raw = index.read(dtype.itemsize * min(step, count - first))
            offsets = np.concatenate([end, np.frombuffer(raw, dtype=dtype).astype(np.int64)])
            end = offsets[-1:]
            yield _decode_block(split, data, offsets - offsets[0], layout, first_sample=first)
        index.expect_end()
        data.expect_end()


def _decode_block(
    split: OfficialSplit,
    data: Unfolded,
    offsets: npt.NDArray[np.int64],
    layout: TokenLayout,
    *,
    first_sample: int,
) -> npt.NDArray[np.unsignedinteger]:
    with _named_damage(split.index):
        check_offsets(offsets, layout.length, first_sample)
    raw = np.frombuffer(data.read(int(offsets[-1])), dtype=np.uint8)
    with _named_damage(split.data):
        tokens_NL = decode_escaped(raw, offsets, layout.length, first_sample=first_sample)
        largest = int(tokens_NL.max())
        if largest >= layout.num_codes:
            row = int(np.argmax(tokens_NL.max(axis=1)))
            raise DamagedError(
                f"sample {first_sample + row} holds token id {largest} where the codebook has "
                f"{layout.num_codes} codes; give the codebook of these tokens"
            )
    return tokens_NL.reshape(-1, *layout.grid).astype(layout.dtype, copy=False)


@contextmanager
def _named_damage(path: Path) -> Iterator[None]:
    """Add ``path`` to the message of a ``DamagedError``."""
    try:
        yield
    except DamagedError as error:
        raise DamagedError(f"{path}: {error}") from error


def read_labels(
    split: OfficialSplit, count: int, classes: tuple[str, ...] | None
) -> npt.NDArray[np.int32]:
    """Return labels int32 (``count``,), or (0,) if the split has no label file.

    Raises:
        UsageError: it holds anything but one label of ``classes`` per sample.
    """
    if split.labels is None:
        return np.empty(0, dtype=np.int32)
    labels = array("i")
    limit = MAX_UNNAMED_CLASSES if classes is None else len(classes)
    with explained_reads(split.labels), split.labels.open("rb") as file:
        for line in iter(lambda: file.readline(_LABEL_LINE_BYTES), b""):
            match = _LABEL.fullmatch(line)
            where = f"{split.labels}, line {len(labels) + 1}"
            if not match:
                raise UsageError(f"{where} is {line!r} where a label, an integer, belongs")
            label = int(match[1])
            if not -1 <= label < limit:
                raise UsageError(
                    f"{where}: label {label} is outside -1 (none) to {limit - 1}; name the "
                    "classes, or give the labels that belong to them"
                )
            if len(labels) == count:
                raise UsageError(
                    f"{split.labels} holds more labels than the {count} samples of {split.index}"
                )
            labels.append(label)
    if len(labels) != count:
        raise UsageError(
            f"{split.labels} holds {len(labels)} labels where {split.index} names {count} samples"
        )
    return np.array(labels, dtype=np.int32)
