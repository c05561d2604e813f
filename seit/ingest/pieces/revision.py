"""Second pass over pieces whose labels or keys turned out otherwise than their workers could know.

A shard is read, changed and written under a number of its own, so that a kill leaves the first one
for another attempt. Only the store is read again, never the corpus.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from seit.errors import DamagedError
from seit.files import inside
from seit.ingest.pieces.labels import renumbered
from seit.ingest.pieces.maker import SHARDS_OF_PIECE, describe_shard
from seit.ingest.pieces.piece import PieceRecord, PieceShard
from seit.ingest.pieces.place import JobPlace, record_name, revision_name
from seit.shards import (
    BLOCK_SAMPLES,
    Block,
    Codec,
    LocalFolder,
    ShardWriter,
    even_blocks,
    read_tar_blocks,
)


@dataclass(frozen=True)
class RevisionTask:
    """Changes of a finished piece.

    Attributes:
        number: number of the piece.
        num_pieces: number of pieces; revised shards are numbered as if theirs came after these.
        shards: sha256, hex, of each of its shards.
        labels: label → new label.
        dropped: file of a shard → rows that are left out.
    """

    number: int
    num_pieces: int
    shards: tuple[str, ...]
    labels: Mapping[int, int] = field(default_factory=dict)
    dropped: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of its record."""
        return revision_name(self.number)

    @property
    def revision(self) -> str:
        """The sha256, hex, over its shards and the changes; another one is another revision.

        If another piece was made again, it may have brought classes that renumber all labels.
        """
        facts = [self.shards, sorted(self.labels.items()), sorted(self.dropped.items())]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def revise(place: JobPlace, codec: Codec, task: RevisionTask) -> PieceRecord:
    """Write the revised shards of a piece and record it as done.

    Raises:
        DamagedError: a shard is not as it was written.
    """
    record = place.read_record(record_name(task.number))
    if record is None:
        raise DamagedError(
            f"the record of piece {task.number} at {place} is gone; run the same command again"
        )
    with place.scratch() as scratch:
        made = []
        for part, shard in _numbered(record):
            index = (task.num_pieces + task.number) * SHARDS_OF_PIECE + part
            found = _revise_shard(place, codec, task, shard, index, scratch)
            made += [] if found is None else [found]
        revised = replace(record, shards=tuple(made), names=(), revision=task.revision)
        place.forget(task.name)  # of another revision, whose shards are replaced now
        for shard in made:
            place.put(scratch, shard.record)
        place.write_record(scratch, task.name, revised)
    return revised


def _numbered(record: PieceRecord) -> Iterator[tuple[int, PieceShard]]:
    """Yield the shards of a piece with their numbers within their splits."""
    counts: dict[str, int] = {}
    for shard in record.shards:
        part = counts.get(shard.split, 0)
        counts[shard.split] = part + 1
        yield part, shard


def _revise_shard(
    place: JobPlace,
    codec: Codec,
    task: RevisionTask,
    shard: PieceShard,
    index: int,
    scratch: Path,
) -> PieceShard | None:
    """Write a revised shard into the scratch folder; None if no sample is left."""
    name = shard.record.file
    data = place.folder.read(name, 0, shard.record.bytes)
    if hashlib.sha256(data).hexdigest() != shard.record.sha256:
        raise DamagedError(
            f"{place.locate(name)} is not as it was written; remove it and run the same command "
            "again"
        )
    old = inside(scratch, f"old/{name}")
    old.parent.mkdir(parents=True, exist_ok=True)
    old.write_bytes(data)
    dropped = set(task.dropped.get(name, ()))
    labels: list[np.ndarray] = []
    kept = _kept(read_tar_blocks(LocalFolder(scratch / "old"), name, codec), dropped, task.labels)
    with ShardWriter(scratch, split=shard.split, index=index, codec=codec) as writer:
        for block in even_blocks(kept, BLOCK_SAMPLES):
            labels.append(block.labels)
            writer.write(block)
    old.unlink()
    if not writer.record.samples:
        return None
    return describe_shard(scratch, shard.split, writer.record, np.concatenate(labels))


def _kept(
    blocks: Iterable[Block], dropped: Collection[int], labels: Mapping[int, int]
) -> Iterator[Block]:
    """Yield what is left of the blocks of a shard without some rows, with the new labels."""
    first = 0
    for block in blocks:
        count = len(block.keys)
        rows = [row for row in range(count) if first + row not in dropped]
        first += count
        if rows:
            yield Block(
                tokens=block.tokens[rows],
                labels=renumbered(block.labels[rows], labels),
                keys=tuple(block.keys[row] for row in rows),
                metadata=block.metadata and tuple(block.metadata[row] for row in rows),
            )
