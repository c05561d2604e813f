"""Writing of samples of existing stores as a new store.

It is first made packed, in tars, so that the samples for fitting the entropy coding are known.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import numpy as np
import numpy.typing as npt

from seit.documents import parse_json
from seit.errors import DamagedError
from seit.files import explained_writes
from seit.outcomes import Outcome
from seit.progress import Count
from seit.shards import (
    CODEBOOK_NAME,
    EDITS_ENTRY,
    MAX_SHARD_BLOCKS,
    SKIPPED_NAME,
    Block,
    Card,
    Codec,
    LocalFolder,
    Location,
    PackedCodec,
    ShardRecord,
    ShardWriter,
    Split,
    Store,
    codebook_file,
    even_blocks,
    open_folder,
    open_store,
)
from seit.stores.place import place_store
from seit.stores.recode import CONTAINERS, check_labels, choose_codec, recode_store
from seit.stores.sink import RemoteSink, Sink

SHARD_SAMPLES = 8192
"""Samples per shard, or more if a source has larger ones."""


@dataclass(frozen=True, repr=False)
class Rewritten(Outcome):
    """Facts about a rewritten store.

    Attributes:
        samples: samples in all splits.
        skipped: unreadable inputs, as listed in `skipped.jsonl`.
        bytes: bytes of all files.
        bytes_per_sample: `bytes` over `samples`.
        splits: samples per split.
        classes: number of classes.
        codec: codec of the tokens.
        container: format of the shards.
        left_out: samples left out on request.
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
    """Contents of a new store.

    Attributes:
        like: store that provides tokenizer, codebook, weights and block size.
        splits: samples of each split, in pieces of any size.
        samples: number of samples in all splits.
        classes: class names.
        skipped: lines of `skipped.jsonl`.
        source_bytes: bytes of the original files of all samples.
        quality: field of the card.
        job: field of the card.
        shard_samples: samples per shard, a multiple of the block size.
        parts: the samples of all splits, as splits of other stores and masks, for a codec that is
            fitted before they are written.
        files: contents of other small files, by name, replacing those of ``like``.
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
    parts: Sequence[tuple[Split, npt.NDArray[np.bool_]]] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


def write_contents(
    contents: Contents,
    work: Path,
    target: Location,
    *,
    codec: str,
    container: str,
    request: Mapping[str, Any],
    progress: Count | None,
) -> None:
    """Write a new store at ``target``, through the folder ``work``.

    Tars go straight to a remote target, one by one. A Zarr group is made on the local disk first.

    Args:
        contents: the contents.
        work: folder from :func:`~seit.stores.place.work_folder`.
        target: path or URL.
        codec: ``"packed"`` or ``"context"``.
        container: ``"wds"`` or ``"zarr"``.
        request: what decides the keys, apart from the contents' own fields, as JSON.
        progress: callback for progress.

    Raises:
        UsageError: a remote target holds something, perhaps the leftovers of another call.
        DamagedError: a source is damaged.
        SeitError: the disk is full, or a remote server does not respond.
    """
    place = open_folder(target)
    if container == CONTAINERS[0] and not isinstance(place, LocalFolder):
        asked = {**request, "codec": codec, "contents": _digest_of(contents)}
        sink = RemoteSink(place, work, asked)
        if not sink.is_complete:
            chosen = choose_codec(codec, contents.parts, like=contents.like)
            sink.write_card(_write_all(contents, sink, chosen, progress=progress))
        sink.close()
        return
    made = work / "store"
    make_store(contents, work, made, codec=codec, container=container, progress=progress)
    place_store(made, target)


def make_store(
    contents: Contents,
    work: Path,
    made: Path,
    *,
    codec: str,
    container: str,
    progress: Count | None = None,
) -> None:
    """Write a new store into the new folder ``made``, through the folder ``work``.

    Raises:
        DamagedError: a source is damaged.
        SeitError: the disk is full.
    """
    packed = work / "packed"
    write_packed(contents, packed, progress=progress)
    if (codec, container) == (PackedCodec.name, CONTAINERS[0]):
        with explained_writes(made):
            packed.rename(made)
    else:
        recode_store(open_store(packed), made, codec=codec, container=container, progress=progress)


def write_packed(contents: Contents, folder: Path, *, progress: Count | None) -> None:
    """Write a packed store of tars into a new ``folder``, the card last."""
    with explained_writes(folder):
        folder.mkdir(parents=True)
    sink = Sink(folder)
    codec = PackedCodec(contents.like.card.layout)
    sink.write_card(_write_all(contents, sink, codec, progress=progress))


def _digest_of(contents: Contents) -> str:
    """Return the sha256, hex, over all that decides the files but not the keys."""
    card = [contents.job, contents.classes, contents.quality, contents.shard_samples]
    digest = hashlib.sha256(json.dumps(card).encode())
    digest.update(b"".join(contents.skipped))
    for split, mask in contents.parts:
        name = json.dumps([split.store.card.seal, split.name, len(mask)])
        digest.update(name.encode() + np.packbits(mask).tobytes())
    return digest.hexdigest()


def _write_all(contents: Contents, sink: Sink, codec: Codec, *, progress: Count | None) -> Card:
    """Write tars and all other files but the card, and return it."""
    like = contents.like
    data = {CODEBOOK_NAME: codebook_file(like.codebook, codec)}
    for record in like.card.files:
        others = (CODEBOOK_NAME, SKIPPED_NAME, *contents.files)
        if "/" not in record.file and record.file not in others:
            data[record.file] = like.read_listed(record.file)
    data[SKIPPED_NAME] = b"".join(contents.skipped)
    files = list(sink.write_listed(data))
    splits = {}
    done = 0
    for name, pieces in contents.splits.items():
        records = []
        for record in _write_split(sink, name, pieces, contents, codec):
            records.append(record)
            done += record.samples
            if progress:
                progress(done, contents.samples)
        splits[name] = tuple(records)
        if records:
            files.append(sink.write_index(name, records))
    return Card(
        tokenizer=like.card.tokenizer,
        codec=codec.name,
        container=CONTAINERS[0],
        block_samples=like.card.block_samples,
        classes=contents.classes,
        splits=splits,
        files=(*files, *sink.write_listed(contents.files)),
        skipped=len(contents.skipped),
        source_bytes=contents.source_bytes,
        quality=contents.quality,
        job=contents.job,
    )


def _write_split(
    sink: Sink, split: str, pieces: Iterable[Block], contents: Contents, codec: Codec
) -> Iterator[ShardRecord]:
    size = contents.like.card.block_samples
    blocks = even_blocks(pieces, size)
    for index, first in enumerate(blocks):
        with ShardWriter(sink.folder, split=split, index=index, codec=codec) as writer:
            writer.write(first)
            for block in islice(blocks, contents.shard_samples // size - 1):
                writer.write(block)
        sink.put(writer.record)
        yield writer.record


def common_shard_samples(stores: Sequence[Store], block_samples: int) -> int:
    """Return the samples per shard, in whole blocks, of a store made of ``stores``."""
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
    """Yield the samples with label ``numbers[i]`` for label i; −1 stays −1.

    Raises:
        DamagedError: a label is out of range.
    """
    lookup = np.append(numbers, np.int32(-1))
    for piece in pieces:
        check_labels(piece.labels, len(numbers), where=where)
        yield replace(piece, labels=lookup[piece.labels])


class SkippedInput(TypedDict):
    """Unreadable input, as a line of `skipped.jsonl` describes it."""

    key: str
    split: str


def skipped_lines(store: Store) -> list[tuple[SkippedInput, bytes]]:
    """Return the lines of `skipped.jsonl`, each as a record and as raw bytes.

    Raises:
        DamagedError: the file is damaged.
    """
    if all(record.file != SKIPPED_NAME for record in store.card.files):
        return []
    found = []
    for number, line in enumerate(store.read_listed(SKIPPED_NAME).splitlines(keepends=True), 1):
        try:
            entry: SkippedInput = parse_json(line)
            msgspec.convert(entry, SkippedInput)
        except ValueError as error:
            raise DamagedError(
                f"{store.folder.locate(SKIPPED_NAME)}, line {number} is not a record of an input "
                f"({error}); restore it from a copy"
            ) from error
        found.append((entry, line if line.endswith(b"\n") else line + b"\n"))
    return found


def share_of(source_bytes: int, kept: int, samples: int) -> int:
    """Estimate the original bytes of ``kept`` of ``samples``, assumed equally large."""
    return source_bytes * kept // max(samples, 1)


def edited_job(job: Mapping[str, Any], **edit: Any) -> dict[str, Any]:
    """Return the card's ``job`` with an edit appended, such as ``delete={"samples": 3}``."""
    earlier = job.get(EDITS_ENTRY)
    return {**job, EDITS_ENTRY: [*(earlier if isinstance(earlier, list) else []), edit]}


def describe(target: Location, *, left_out: int) -> Rewritten:
    """Describe the finished store at ``target``."""
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
