"""Hypothesis strategies for property tests of readers and writers of stores.

    @given(data=st.data(), layout=token_layouts())
    def test_my_codec(data, layout):
        block = data.draw(blocks(layout))
        ...

`write_store` makes a whole store of such blocks. Install hypothesis separately: seit does not
`write_store` makes a whole store of such blocks. Install hypothesis separately: seit does not
depend on it. `shards/golden` holds stores for readers in other languages.

Legend: N samples, H W grid, L = H·W tokens per sample, K codes, C codebook dimension, R inner nodes
of a context tree, R0 inner nodes of its first group.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.errors import UsageError
from seit.files import inside
from seit.shards import (
    CODEBOOK_NAME,
    MAX_SCORE,
    PROBABILITY_BITS,
    SKIPPED_NAME,
    Block,
    Card,
    Codec,
    ContextCodec,
    ContextTables,
    PackedCodec,
    ShardRecord,
    ShardWriter,
    TokenizerInfo,
    TokenLayout,
    TreeShape,
    codebook_file,
    write_index,
    write_listed,
    write_zarr_split,
)
from seit.stores import check_names

try:
    from hypothesis import strategies as st
    from hypothesis.strategies import SearchStrategy
except ImportError as error:
    raise UsageError(
        "seit.testing needs hypothesis, which is not installed; run: pip install hypothesis"
    ) from error

__all__ = [
    "blocks",
    "context_tables",
    "metadata_entries",
    "token_grids",
    "token_layouts",
    "write_store",
]

CLASSES = ("ant", "bee", "cat")
"""Default class names of a store."""
_EDGES = (2, 3, 4, 5, 16, 17, 255, 256, 257, 391, 510, 511, 1000, 4096, 8193, 65_536, 65_537)
"""Numbers of codes at which planes, dtype or escapes of a format change."""


def token_layouts(*, max_side: int = 6, max_codes: int = 70_000) -> "SearchStrategy[TokenLayout]":
    """Draw layouts with grids (H, W) of sides 1 … ``max_side`` and K = 2 … ``max_codes`` codes."""
    sides = st.integers(1, max_side)
    num_codes = st.sampled_from([codes for codes in _EDGES if codes <= max_codes])
    return st.builds(
        TokenLayout,
        grid=st.tuples(sides, sides),
        num_codes=num_codes | st.integers(2, max_codes),
    )


def token_grids(
    layout: TokenLayout, count: int
) -> "SearchStrategy[npt.NDArray[np.unsignedinteger]]":
    """Draw ids (``count``, H, W) below K: unordered, rarely changing along a row, or all equal."""
    first = st.integers(0, layout.num_codes - 1)
    size = count * layout.length

    def shaped(ids: npt.NDArray[np.integer]) -> npt.NDArray[np.unsignedinteger]:
        tokens: npt.NDArray[np.unsignedinteger] = (ids % layout.num_codes).astype(layout.dtype)
        return tokens.reshape(count, *layout.grid)

    def without_order(data: bytes) -> npt.NDArray[np.unsignedinteger]:
        return shaped(np.frombuffer(data, dtype="<u4").astype(np.int64))

    def smooth(start: int, data: bytes) -> npt.NDArray[np.unsignedinteger]:
        return shaped(start + np.cumsum(np.frombuffer(data, dtype=np.uint8) == 1, dtype=np.int64))

    return st.one_of(
        st.builds(lambda start: shaped(np.full(size, start, dtype=np.int64)), first),
        st.builds(smooth, first, st.binary(min_size=size, max_size=size)),
        st.builds(without_order, st.binary(min_size=4 * size, max_size=4 * size)),
    )


def metadata_entries() -> "SearchStrategy[dict[str, Any]]":
    """Draw metadata of samples: JSON objects, often empty."""
    numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    values = st.recursive(
        st.none() | st.booleans() | _texts() | numbers,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts(), inner, max_size=3),
        max_leaves=4,
    )
    return st.just({}) | st.dictionaries(_texts(), values, max_size=2)


@st.composite
def blocks(
    draw: st.DrawFn,
    layout: TokenLayout,
    *,
    min_samples: int = 0,
    max_samples: int = 8,
    num_classes: int = len(CLASSES),
) -> Block:
    """Draw blocks of N = ``min_samples`` … ``max_samples`` samples.

    Ids (N, H, W) come from `token_grids`; labels int32 (N,) are −1 … ``num_classes`` − 1; keys are
    unique; metadata are None or one mapping per sample.
    """
    count = draw(st.integers(min_samples, max_samples))
    labels = draw(st.lists(st.integers(-1, num_classes - 1), min_size=count, max_size=count))
    keys = draw(st.lists(_texts(), min_size=count, max_size=count, unique=True))
    metadata = draw(st.none() | st.lists(metadata_entries(), min_size=count, max_size=count))
    return Block(
        tokens=draw(token_grids(layout, count)),
        labels=np.array(labels, dtype=np.int32),
        keys=tuple(keys),
        metadata=tuple(metadata) if metadata is not None and any(metadata) else None,
    )


def context_tables(num_codes: int) -> "SearchStrategy[ContextTables]":
    """Draw tables of the codec `context` for K = 2 … 4,096 codes: any that a reader must accept.

    Paths uint16 (K,), squash uint16 (193,), bias int16 (R,), weights int8 (2, K + 1, R) and corner
    int8 (K + 1, R0) are not fitted to any tokens, so coded tokens mostly become longer. They take
    K times R bytes: keep K small.
    """
    weights = st.sampled_from([1, 8, 128])
    return st.builds(_random_tables, st.just(num_codes), st.integers(0, 2**32 - 1), weights)


def _random_tables(num_codes: int, seed: int, reach: int) -> ContextTables:
    """Return tables with weights of −``reach`` … ``reach`` − 1."""
    rng = np.random.default_rng(seed)
    shape = TreeShape(num_codes)
    most = (1 << PROBABILITY_BITS) - 1

    def weights(*size: int) -> npt.NDArray[np.int8]:
        return rng.integers(-reach, reach, size=size, dtype=np.int8)

    return ContextTables(
        num_codes=num_codes,
        paths=rng.permutation(shape.num_leaves)[:num_codes].astype(np.uint16),
        squash=rng.integers(1, most + 1, size=2 * MAX_SCORE + 1).astype(np.uint16),
        bias=rng.integers(-2 * reach, 2 * reach, size=shape.row_size).astype(np.int16),
        weights=weights(2, num_codes + 1, shape.row_size),
        corner=weights(num_codes + 1, shape.first_size),
    )


def _texts() -> "SearchStrategy[str]":
    """Draw strings that have a UTF-8 form."""
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def write_store(
    path: Path,
    splits: Mapping[str, Block],
    layout: TokenLayout,
    *,
    codec: str = "packed",
    container: str = "wds",
    tables: ContextTables | None = None,
    codebook: npt.NDArray[np.float32] | None = None,
    classes: Sequence[str] = CLASSES,
    block_samples: int = 1024,
    shard_samples: Mapping[str, Sequence[int]] | None = None,
    indexed: bool = True,
) -> Card:
    """Write a whole store; equal arguments make equal files.

    Args:
        path: a new or empty folder.
        splits: all samples of each split, as one block of any size.
        layout: layout of the tokens.
        codec: ``"packed"`` or ``"context"``.
        container: ``"wds"`` or ``"zarr"``.
        tables: tables of the codec ``context``, which requires them.
        codebook: float32 (K, C); default: (K, 1), the numbers 0 … K − 1.
        classes: class names; labels index them.
        block_samples: samples per block, 1 … 65,536.
        shard_samples: samples of each shard of a split; 0 is allowed in a ``wds`` container; in
            ``zarr`` all but the last must be equal, and multiples of ``block_samples``. Default:
            one shard per split.
        indexed: whether ``wds`` splits have a block index.

    Raises:
        UsageError: there is no such codec or container, or ``context`` has no tables.
    """
    check_names(codec, container)
    coder = _build_codec(codec, layout, tables)
    if codebook is None:
        codebook = np.arange(layout.num_codes, dtype=np.float32)[:, None]
    path.mkdir(parents=True, exist_ok=True)
    contents = {CODEBOOK_NAME: codebook_file(codebook, coder), SKIPPED_NAME: b""}
    files = list(write_listed(path, contents))
    shards: dict[str, tuple[ShardRecord, ...]] = {}
    for name, block in splits.items():
        counts = (shard_samples or {}).get(name, (len(block.keys),))
        assert sum(counts) == len(block.keys), "shard_samples must add up to the split"
        if container == "zarr":
            step = block_samples * -(-max([1, *counts]) // block_samples)
            group = write_zarr_split(
                inside(path, f"{name}.zarr"),
                _cut(block, 0, len(block.keys), block_samples),
                codec=coder,
                num_samples=len(block.keys),
                classes=classes,
                block_samples=block_samples,
                shard_samples=step,
            )
            shards[name] = group.shards
            files += group.files
            continue
        shards[name] = tuple(_write_tars(path, name, block, counts, coder, block_samples))
        if indexed and counts:
            files.append(write_index(path, name, shards[name]))
    card = Card(
        tokenizer=TokenizerInfo(
            name="example",
            fingerprint=hashlib.sha256(codebook.astype("<f4").tobytes()).hexdigest(),
            modality="image",
            preprocessing={},
            grid=layout.grid,
            codebook_size=layout.num_codes,
            codebook_dim=codebook.shape[-1],
            flip_equivariant=False,
        ),
        codec=codec,
        container=container,
        block_samples=block_samples,
        classes=tuple(classes),
        splits=shards,
        files=tuple(files),
        skipped=0,
        source_bytes=0,
        quality={},
        job={},
    )
    card.write(path)
    return card


def _build_codec(name: str, layout: TokenLayout, tables: ContextTables | None) -> Codec:
    if name == PackedCodec.name:
        return PackedCodec(layout)
    if tables is None:
        raise UsageError("the codec 'context' needs tables; draw some from context_tables(K)")
    return ContextCodec(layout, tables)


def _write_tars(
    path: Path,
    split: str,
    block: Block,
    counts: Sequence[int],
    codec: Codec,
    block_samples: int,
) -> Iterator[ShardRecord]:
    bounds = np.cumsum([0, *counts]).tolist()
    for index, (start, stop) in enumerate(pairwise(bounds)):
        with ShardWriter(path, split=split, index=index, codec=codec) as writer:
            for part in _cut(block, start, stop, block_samples):
                writer.write(part)
        yield writer.record


def _cut(block: Block, start: int, stop: int, step: int) -> Iterator[Block]:
    """Yield the samples from ``start`` to ``stop`` as blocks of ``step``."""
    for first in range(start, stop, step):
        rows = slice(first, min(first + step, stop))
        metadata = block.metadata and block.metadata[rows]
        yield Block(
            tokens=block.tokens[rows],
            labels=block.labels[rows],
            keys=block.keys[rows],
            metadata=metadata if metadata and any(metadata) else None,
        )
