"""Regrouping of samples from blocks of any size into blocks of equal size."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from seit.shards.blocks import Block


def even_blocks(pieces: Iterable[Block], size: int) -> Iterator[Block]:
    """Regroup ``pieces`` into blocks of ``size`` (the last may be smaller); buffers about one."""
    waiting: list[Block] = []
    held = 0
    for piece in pieces:
        waiting.append(piece)
        held += len(piece.keys)
        if held < size:
            continue
        joined = _join(waiting)
        rest = held % size
        for start in range(0, held - rest, size):
            yield _slice(joined, start, start + size)
        waiting = [_slice(joined, held - rest, held)] if rest else []
        held = rest
    if held:
        yield _join(waiting)


def _join(blocks: Sequence[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    metadata: tuple[Mapping[str, Any], ...] | None = None
    if any(block.metadata is not None for block in blocks):
        metadata = tuple(
            entry for block in blocks for entry in block.metadata or ({},) * len(block.keys)
        )
    return Block(
        tokens=np.concatenate([block.tokens for block in blocks]),
        labels=np.concatenate([block.labels for block in blocks]),
        keys=tuple(key for block in blocks for key in block.keys),
        metadata=metadata,
    )


def _slice(block: Block, start: int, stop: int) -> Block:
    metadata = None if block.metadata is None else block.metadata[start:stop]
    return Block(
        tokens=block.tokens[start:stop],
        labels=block.labels[start:stop],
        keys=block.keys[start:stop],
        metadata=metadata if metadata and any(metadata) else None,
    )
