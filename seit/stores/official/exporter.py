"""Export of a store to files of naver-ai/seit.

Legend: N samples, L tokens per sample.
"""

import gzip
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from seit.errors import DamagedError, UsageError
from seit.files import (
    PARTIAL_SUFFIX,
    check_new_file,
    create_file,
    explained_writes,
    inside,
    publish,
)
from seit.progress import Count
from seit.shards import Kind, Store
from seit.stores.official.codebook import torch_bytes
from seit.stores.official.escape import ID_LIMIT, PIECE_TOKENS, encode_escaped
from seit.stores.official.files import (
    CODEBOOK_FILE,
    DATA_SUFFIX,
    INDEX_SUFFIX,
    LABEL_SUFFIX,
    check_split_name,
    made_folder,
)

_GZIP_LEVEL = 6


def export_official(store: Store, folder: Path, *, progress: Count | None = None) -> dict[str, int]:
    """Write all splits of a store as files that `find_official` finds; return the bytes of each.

    The format cannot hold keys, metadata, class names or the grid's shape, which are lost. An
    unlabeled sample has the label −1. Equal stores give equal files. After an error no file is left
    in ``folder``, which is created if missing.

    Args:
        store: the store; its ids must be below `ID_LIMIT`.
        folder: destination of the files.
        progress: callback after each block.

    Raises:
        UsageError: an id is too large, tokens have levels, or a file exists; nothing was written.
        DamagedError: the store is damaged.
        SeitError: a file cannot be written.
    """
    if store.card.layout.dtype != np.uint16:
        raise UsageError(
            "the store has ids of more than 16 bits; in the files of naver-ai/seit they are below "
            f"{ID_LIMIT}: tokenize with at most {ID_LIMIT} codes"
        )
    if store.codebook.ndim != 2:
        raise UsageError(
            f"the store has {len(store.codebook)} levels of codes; the files of naver-ai/seit have "
            "one: tokenize with a tokenizer of one level"
        )
    for name in store:
        check_split_name(name)
    names = [
        *(name + suffix for name in store for suffix in (DATA_SUFFIX, INDEX_SUFFIX, LABEL_SUFFIX)),
        CODEBOOK_FILE,
    ]
    total = sum(len(split) for split in store.values())
    done = 0
    with made_folder(folder), _all_or_none([inside(folder, name) for name in names]) as partials:
        for number, name in enumerate(store):
            paths = partials[3 * number : 3 * number + 3]
            with closing(_export_split(store, name, *paths)) as blocks:
                for samples in blocks:
                    done += samples
                    if progress:
                        progress(done, total)
        with explained_writes(folder), _flushed(partials[-1]) as file:
            file.write(torch_bytes(store.codebook))
    return {name: (folder / name).stat().st_size for name in names}


def _export_split(
    store: Store, name: str, data: Path, index: Path, labels: Path
) -> Generator[int, None, None]:
    """Write the files of a split; yield the number of samples after each block."""
    split = store[name]
    length = split.layout.length
    step = max(1, PIECE_TOKENS // length)
    end = 0
    with (
        explained_writes(data.parent),
        _flushed(labels) as label_file,
        _flushed(data) as data_file,
        _folded(data_file) as token_bytes,
        _flushed(index) as index_file,
        _folded(index_file) as offset_bytes,
    ):
        header = {"descr": "<i8", "fortran_order": False, "shape": (len(split) + 1,)}
        np.lib.format.write_array_header_1_0(offset_bytes, header)
        offset_bytes.write(bytes(8))
        for shard, block in split.blocks():
            tokens_NL = shard.open_block(block, Kind.TOKENS).reshape(-1, length)
            for row in range(0, len(tokens_NL), step):
                coded, offsets = encode_escaped(tokens_NL[row : row + step])
                token_bytes.write(coded.tobytes())
                offset_bytes.write((offsets[1:] + end).astype("<i8").tobytes())
                end += len(coded)
            labels_N = shard.open_block(block, Kind.LABELS)
            if not -1 <= labels_N.min() <= labels_N.max() < len(store.classes):
                raise DamagedError(
                    f"split {name!r} holds labels from {labels_N.min()} to {labels_N.max()} where "
                    f"the card names {len(store.classes)} classes"
                )
            label_file.write("".join(f"{label}\n" for label in labels_N.tolist()).encode())
            yield len(tokens_NL)


def _folded(file: BinaryIO) -> gzip.GzipFile:
    """Return a gzip writer to ``file`` without name or time, so that its output is reproducible."""
    return gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0)


@contextmanager
def _flushed(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing and flush it to the disk at the end."""
    with create_file(path) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _all_or_none(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield a temporary name for each new file, and publish all on success.

    Raises:
        UsageError: one of them already exists.
    """
    partials = [path.with_name(path.name + PARTIAL_SUFFIX) for path in paths]
    for path in paths:
        check_new_file(path)
    published: list[Path] = []
    try:
        yield partials
        for partial, path in zip(partials, paths, strict=True):
            with explained_writes(path):
                publish(partial, path)
            published.append(path)
    except BaseException:
        for path in (*partials, *published):
            path.unlink(missing_ok=True)
        raise
