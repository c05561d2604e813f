"""Recoding of a store with another codec or container; keys, labels, metadata and order stay.

Legend: N samples, n of a block, H W grid.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from seit.errors import DamagedError, UsageError
from seit.files import explained_writes, inside
from seit.progress import Count
from seit.shards import (
    CODEBOOK_NAME,
    FRAME_OVERHEAD_BYTES,
    MAX_CODES,
    Block,
    Card,
    Codec,
    ContextCodec,
    FileRecord,
    PackedCodec,
    Shard,
    ShardRecord,
    ShardWriter,
    Split,
    Store,
    check_split_names,
    codebook_file,
    even_blocks,
    group_name,
    write_zarr_split,
)
from seit.stores.sink import RemoteSink, Sink

CONTAINERS = ("wds", "zarr")
CODECS = (PackedCodec.name, ContextCodec.name)
_FIT_SAMPLE_BYTES = 64
"""Memory of a sample chosen for a fit, in addition to its ids."""


def recode_store(
    source: Store,
    target: Path,
    *,
    codec: str,
    container: str,
    progress: Count | None = None,
) -> Card:
    """Write a store into the folder ``target``, over leftovers of an earlier attempt.

    Falls back from the codec ``context`` to ``packed`` if that would not make the store smaller or
    if K > 4,096; the card says which. The card comes last.

    Raises:
        UsageError: the codec or container is unknown, or two splits would share a folder.
        DamagedError: the source is damaged.
        SeitError: the disk is full.
    """
    check_names(codec, container)
    check_split_names(source)
    sink = Sink(target)
    if codec == ContextCodec.name and _serves(source):
        fitted = _CountingCodec.build(source.card.layout, fit_codec(source).tables)
        card = _write(source, sink, fitted, container, progress)
        if fitted.saved_bytes > len(fitted.tables):
            sink.write_card(card)
            return card
    card = _write(source, sink, PackedCodec(source.card.layout), container, progress)
    sink.write_card(card)
    return card


def recode_straight(
    source: Store, sink: RemoteSink, *, codec: str, progress: Count | None = None
) -> None:
    """Write a store in tars into object storage, shard by shard; the card comes last.

    As :func:`recode_store`, but samples decide whether the codec `context` makes it smaller.

    Raises:
        UsageError: the codec is unknown, two splits would share a folder, or another call wrote a
            store at the place meanwhile.
        DamagedError: the source is damaged.
        SeitError: a remote server does not respond.
    """
    check_names(codec, CONTAINERS[0])
    check_split_names(source)
    if not sink.is_complete:
        chosen = choose_codec(codec, [(split, None) for split in source.values()], like=source)
        sink.write_card(_write(source, sink, chosen, CONTAINERS[0], progress))
    sink.close()


def _serves(source: Store) -> bool:
    """Return whether the codec `context` takes the tokens of a store."""
    return source.card.layout.num_codes <= MAX_CODES and source.card.samples > 0


Rows: TypeAlias = npt.NDArray[np.bool_] | None
"""Mask of some samples of a split; None for all."""


def fit_codec(store: Store) -> ContextCodec:
    """Fit the `context` codec to evenly spaced samples of all splits of a store.

    Raises:
        UsageError: K > 4,096.
    """
    return _fit([(split, None) for split in store.values()], like=store)[0]


def choose_codec(codec: str, parts: Sequence[tuple[Split, Rows]], *, like: Store) -> Codec:
    """Return the codec for samples of some splits, fitted to evenly spaced ones.

    It is `packed` instead of `context` if that would not make these smaller, or if K > 4,096.

    Args:
        codec: name of the codec.
        parts: splits, and the samples of each.
        like: store with the codebook of all.
    """
    layout = like.card.layout
    total = _num_samples(parts)
    if codec == ContextCodec.name and layout.num_codes <= MAX_CODES and total:
        fitted, tokens_NHW = _fit(parts, like=like)
        from seit.shards import smaller_codec

        return smaller_codec(fitted, tokens_NHW, total_samples=total)
    return PackedCodec(layout)


def _num_samples(parts: Sequence[tuple[Split, Rows]]) -> int:
    return sum(len(split) if rows is None else int(rows.sum()) for split, rows in parts)


def _fit(
    parts: Sequence[tuple[Split, Rows]], *, like: Store
) -> tuple[ContextCodec, npt.NDArray[np.unsignedinteger]]:
    """Return the fitted codec, and the tokens (n, H, W) that it was fitted to."""
    from seit.shards import MAX_FIT_TOKENS, fit_context

    layout = like.card.layout
    total = _num_samples(parts)
    count = min(total, max(1, MAX_FIT_TOKENS // layout.length))
    for split, _ in parts:
        split.check_files(count * (layout.length * layout.dtype.itemsize + _FIT_SAMPLE_BYTES))
    chosen = np.arange(count, dtype=np.int64) * total // max(count, 1)
    found: list[npt.NDArray[np.unsignedinteger]] = []
    first = 0
    for split, rows in parts:
        size = _num_samples([(split, rows)])
        inside = chosen[(chosen >= first) & (chosen < first + size)] - first
        found.append(split.read_tokens(inside if rows is None else np.flatnonzero(rows)[inside]))
        first += size
    tokens_NHW = np.concatenate([np.empty((0, *layout.grid), layout.dtype), *found])
    return fit_context(layout, tokens_NHW, like.codebook, total_samples=total), tokens_NHW


def _write(
    source: Store,
    sink: Sink,
    codec: Codec,
    container: str,
    progress: Count | None,
) -> Card:
    """Write everything but the card."""
    with explained_writes(sink.folder):
        sink.folder.mkdir(parents=True, exist_ok=True)
    write_split = _write_tars if container == "wds" else _write_group
    count = _Counter(source.card.samples, progress)
    splits: dict[str, tuple[ShardRecord, ...]] = {}
    contents = {CODEBOOK_NAME: codebook_file(source.codebook, codec)}
    for record in source.card.files:
        if "/" not in record.file and record.file != CODEBOOK_NAME:
            contents[record.file] = source.read_listed(record.file)
    files = list(sink.write_listed(contents))
    for name, split in source.items():
        splits[name], split_files = write_split(split, sink, codec, count)
        files += split_files
    return replace(
        source.card,
        codec=codec.name,
        container=container,
        splits=splits,
        files=tuple(files),
    )


def _write_tars(
    split: Split, sink: Sink, codec: Codec, count: "_Counter"
) -> tuple[tuple[ShardRecord, ...], list[FileRecord]]:
    records = []
    for number, shard in enumerate(split.shards):
        with ShardWriter(sink.folder, split=split.name, index=number, codec=codec) as writer:
            for block in range(shard.num_blocks):
                writer.write(_read_block(split, shard, block))
                count.add(shard.samples_of(block))
        sink.put(writer.record)
        records.append(writer.record)
    return tuple(records), [sink.write_index(split.name, records)] if records else []


def _write_group(
    split: Split, sink: Sink, codec: Codec, count: "_Counter"
) -> tuple[tuple[ShardRecord, ...], list[FileRecord]]:
    folder = inside(sink.folder, group_name(split.name))
    shutil.rmtree(folder, ignore_errors=True)
    written = write_zarr_split(
        folder,
        even_blocks(_counted_blocks(split, count), split.store.card.block_samples),
        codec=codec,
        num_samples=len(split),
        classes=split.classes,
        block_samples=split.store.card.block_samples,
    )
    return written.shards, list(written.files)


def _counted_blocks(split: Split, count: "_Counter") -> Iterator[Block]:
    for shard, number in split.blocks():
        count.add(shard.samples_of(number))
        yield _read_block(split, shard, number)


def _read_block(split: Split, shard: Shard, number: int) -> Block:
    block = shard.open_columns(number).as_block()
    check_labels(block.labels, len(split.classes), where=split.store.folder)
    return block


def check_labels(labels: npt.NDArray[np.integer], num_classes: int, *, where: object) -> None:
    """Check labels (N,) of a store, of which −1 is none.

    Raises:
        DamagedError: a label is out of range.
    """
    low, high = int(labels.min(initial=-1)), int(labels.max(initial=-1))
    if low < -1 or high >= num_classes:
        raise DamagedError(
            f"{where} holds labels from {low} to {high} where its card names {num_classes} "
            "classes; `seit verify` lists all damage"
        )


class _CountingCodec(ContextCodec):
    """Codec `context` that counts the bytes that its frames save compared with packed ones."""

    saved_bytes = 0

    @override
    def encode(self, tokens_NHW: npt.NDArray[np.unsignedinteger]) -> bytes:
        frame = super().encode(tokens_NHW)
        packed_bytes = FRAME_OVERHEAD_BYTES + len(tokens_NHW) * self.layout.sample_bytes
        self.saved_bytes += packed_bytes - len(frame)
        return frame


def check_names(codec: str, container: str) -> None:
    """Refuse an unknown codec or container.

    Raises:
        UsageError: one of the names is unknown.
    """
    if codec not in CODECS:
        raise UsageError(f"no codec is named {codec!r}; there are {', '.join(CODECS)}")
    if container not in CONTAINERS:
        raise UsageError(f"no container is named {container!r}; there are {', '.join(CONTAINERS)}")


class _Counter:
    def __init__(self, total: int, progress: Count | None) -> None:
        self._total = total
        self._done = 0
        self._progress = progress

    def add(self, samples: int) -> None:
        self._done = min(self._done + samples, self._total)
        if self._progress:
            self._progress(self._done, self._total)
