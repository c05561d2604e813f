"""Writing samples of stores that are there already as a new store.

It is made packed, in tars, first: only then is it known what entropy coding has to fit to.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError
from seit.files import explained_writes, inside, write_atomically
from seit.shards import (
    CODEBOOK_NAME,
    CODEBOOK_TENSOR,
    MAX_SHARD_BLOCKS,
    SKIPPED_NAME,
    Block,
    Card,
    FileRecord,
    Location,
    PackedCodec,
    ShardRecord,
    ShardWriter,
    Store,
    even_blocks,
    open_store,
    write_index,
)
from seit.stores.place import place_store
from seit.stores.recode import CONTAINERS, recode_store
from seit.tensors import array_bytes

Progress = Callable[[int, int], None]
"""Called with (what is done, what is to be done)."""
SHARD_SAMPLES = 8192
"""Samples per shard, or more where a source has larger ones."""
EDITS_ENTRY = "edits"
"""The entry of a card's ``job`` that lists, in order, what was done to the store since then."""


@dataclass(frozen=True)
class Rewritten:
    """What was written.

    Attributes:
        samples: over all splits.
        skipped: inputs that could not be read, as `skipped.jsonl` lists them.
        bytes: of all files.
        bytes_per_sample: `bytes` over `samples`.
        splits: samples by split.
        classes: number of classes.
        codec: what codes the tokens.
        container: what the shards are.
        left_out: samples that were to be left out.
    """

    samples: int
    skipped: int
    bytes: int
    bytes_per_sample: float
    splits: Mapping[str, int]
    classes: int
    codec: str
    container: str
    left_out: int


@dataclass(frozen=True)
class Contents:
    """What a new store is to hold.

    Attributes:
        like: a store of the same tokenizer; codebook, weights and block size are taken from it.
        splits: the samples of each split, in pieces of any size.
        samples: how many these are in all.
        classes: class names.
        skipped: the lines of `skipped.jsonl`.
        source_bytes: bytes of the original files of all samples.
        quality: the card's entry.
        job: the card's entry.
        shard_samples: samples per shard, a multiple of the block size.
    """

    like: Store
    splits: Mapping[str, Iterable[Block]]
    samples: int
    classes: tuple[str, ...]
    skipped: Sequence[bytes]
    source_bytes: int
    quality: Mapping[str, float]
    job: Mapping[str, Any]
    shard_samples: int


def write_contents(
    contents: Contents,
    work: Path,
    target: Location,
    *,
    codec: str,
    container: str,
    progress: Progress | None,
) -> None:
    """Write a new store at ``target``, by way of the folder ``work``.

    Raises:
        DamagedError: a source is damaged.
        SeitError: the disk is full.
    """
    packed = work / "packed"
    write_packed(contents, packed, progress=progress)
    if (codec, container) == (PackedCodec.name, CONTAINERS[0]):
        place_store(packed, target)
        return
    recode_store(
        open_store(packed), work / "store", codec=codec, container=container, progress=progress
    )
    place_store(work / "store", target)


def write_packed(contents: Contents, folder: Path, *, progress: Progress | None) -> None:
    """Write a packed store of tars into a new ``folder``, the card last."""
    like = contents.like
    with explained_writes(folder):
        folder.mkdir(parents=True)
    data = {CODEBOOK_NAME: array_bytes({CODEBOOK_TENSOR: like.codebook})}
    for record in like.card.files:
        if "/" not in record.file and record.file not in (CODEBOOK_NAME, SKIPPED_NAME):
            data[record.file] = like.read_listed(record.file)
    data[SKIPPED_NAME] = b"".join(contents.skipped)
    files = [write_listed(folder, name, content) for name, content in data.items()]
    splits = {}
    done = 0
    for name, pieces in contents.splits.items():
        records = []
        for record in _write_split(folder, name, pieces, contents):
            records.append(record)
            done += record.samples
            if progress:
                progress(done, contents.samples)
        splits[name] = tuple(records)
        if records:
            files.append(write_index(folder, name, records))
    Card(
        tokenizer=like.card.tokenizer,
        codec=PackedCodec.name,
        container=CONTAINERS[0],
        block_samples=like.card.block_samples,
        classes=contents.classes,
        splits=splits,
        files=tuple(files),
        skipped=len(contents.skipped),
        source_bytes=contents.source_bytes,
        quality=contents.quality,
        job=contents.job,
    ).write(folder)


def _write_split(
    folder: Path, split: str, pieces: Iterable[Block], contents: Contents
) -> Iterator[ShardRecord]:
    size = contents.like.card.block_samples
    codec = PackedCodec(contents.like.card.layout)
    blocks = even_blocks(pieces, size)
    for index, first in enumerate(blocks):
        with ShardWriter(folder, split=split, index=index, codec=codec) as writer:
            writer.write(first)
            for block in islice(blocks, contents.shard_samples // size - 1):
                writer.write(block)
        yield writer.record


def write_listed(folder: Path, name: str, data: bytes) -> FileRecord:
    """Write a file of a store, and tell what the card has to say of it."""
    write_atomically(inside(folder, name), data)
    return FileRecord(name, len(data), hashlib.sha256(data).hexdigest())


def common_shard_samples(stores: Sequence[Store], block_samples: int) -> int:
    """Samples per shard of a store made of ``stores``: whole blocks."""
    largest = max(
        (
            shard.samples
            for store in stores
            for split in store.card.splits.values()
            for shard in split
        ),
        default=0,
    )
    num_blocks = -(-max(largest, SHARD_SAMPLES) // block_samples)
    return min(num_blocks, MAX_SHARD_BLOCKS) * block_samples


def relabelled(
    pieces: Iterable[Block], numbers: npt.NDArray[np.int32], *, where: object
) -> Iterator[Block]:
    """The same samples, label i having become ``numbers[i]``; −1 stays −1.

    Raises:
        DamagedError: a label is none of them.
    """
    lookup = np.append(numbers, np.int32(-1))
    for piece in pieces:
        low, high = int(piece.labels.min(initial=-1)), int(piece.labels.max(initial=-1))
        if low < -1 or high >= len(numbers):
            raise DamagedError(
                f"{where} holds labels from {low} to {high} where its card names {len(numbers)} "
                "classes; `seit verify` lists all damage"
            )
        yield replace(piece, labels=lookup[piece.labels])


def skipped_lines(store: Store) -> list[tuple[dict[str, Any], bytes]]:
    """The lines of `skipped.jsonl`, each as an object and as it stands there.

    Raises:
        DamagedError: the file is not what was written.
    """
    if all(record.file != SKIPPED_NAME for record in store.card.files):
        return []
    found = []
    for number, line in enumerate(store.read_listed(SKIPPED_NAME).splitlines(keepends=True), 1):
        try:
            entry = json.loads(line)
            _ = str(entry["key"]), str(entry["split"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DamagedError(
                f"{store.folder.locate(SKIPPED_NAME)}, line {number} is no record of an input "
                f"({error!r}); restore it from a copy"
            ) from error
        found.append((entry, line if line.endswith(b"\n") else line + b"\n"))
    return found


def share_of(source_bytes: int, kept: int, samples: int) -> int:
    """Bytes of the original files of ``kept`` of ``samples`` samples, were all equally large."""
    return source_bytes * kept // max(samples, 1)


def edited_job(job: Mapping[str, Any], **edit: Any) -> dict[str, Any]:
    """The card's ``job`` after one more edit, such as ``delete={"samples": 3}``."""
    earlier = job.get(EDITS_ENTRY)
    return {**job, EDITS_ENTRY: [*(earlier if isinstance(earlier, list) else []), edit]}


def describe(target: Location, *, left_out: int) -> Rewritten:
    """What the finished store at ``target`` is."""
    store = open_store(target)
    card = store.card
    return Rewritten(
        samples=card.samples,
        skipped=card.skipped,
        bytes=store.num_bytes,
        bytes_per_sample=store.num_bytes / max(card.samples, 1),
        splits={split: card.samples_of(split) for split in card.splits},
        classes=len(card.classes),
        codec=card.codec,
        container=card.container,
        left_out=left_out,
    )
