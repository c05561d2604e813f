"""Sealing of a store in pieces: its index, its other files, and the card last."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from seit.errors import SeitError
from seit.ingest.config import TokenizeConfig
from seit.ingest.description import describe_tokenizer
from seit.ingest.inputs.remarks import RemarkCounts
from seit.ingest.pieces.maker import SHARDS_OF_PIECE
from seit.ingest.pieces.piece import PieceRecord, Pieces
from seit.ingest.pieces.place import JobPlace, Ready, record_name, revision_name
from seit.ingest.sources.corpus import shown
from seit.ingest.sources.labels import compare_splits, label_remarks
from seit.ingest.sources.media import NOUNS
from seit.shards import (
    BLOCK_SAMPLES,
    CODEBOOK_NAME,
    SKIPPED_NAME,
    TOKENIZER_NAME,
    Card,
    ShardRecord,
    encode_index,
    index_name,
    record_of,
)
from seit.stores import CONTAINERS
from seit.tokenizers import Tokenizer, stored_tokenizer_bytes

_FIRST_SPLITS = ("train", "val", "test")


class Sealed:
    """Sums over the records of all pieces, in their order."""

    def __init__(self, records: Iterable[PieceRecord]) -> None:
        self.shards: dict[str, list[ShardRecord]] = {}
        self.counts: dict[str, Counter[int]] = {}
        self.remarks = RemarkCounts()
        self.source_bytes = 0
        self.skipped = 0
        self.seconds: Counter[str] = Counter()
        """Stage → seconds that workers waited for it."""
        self.lines: list[bytes] = []
        self._indexes: dict[str, list[bytes]] = {}
        for record in records:
            self._add(record)

    def _add(self, record: PieceRecord) -> None:
        for shard in record.shards:
            self.shards.setdefault(shard.split, []).append(shard.record)
            self.counts.setdefault(shard.split, Counter()).update(shard.labels)
            sizes_n4 = np.array(shard.sizes, dtype=np.uint32)
            self._indexes.setdefault(shard.split, []).append(encode_index(sizes_n4))
        self.remarks.merge(record.remarks)
        self.source_bytes += record.source_bytes
        self.seconds.update(record.seconds)
        self.skip(record.skipped)

    def skip(self, entries: Iterable[tuple[str, str, str]]) -> None:
        """Add inputs (key, split, reason) that are left out."""
        for key, split, reason in entries:
            entry = {"key": key, "split": split, "reason": reason}
            self.lines.append(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            self.skipped += 1

    @property
    def splits(self) -> list[str]:
        """Names of the splits: train, val, test, then the others by name."""
        first = [name for name in _FIRST_SPLITS if name in self.shards]
        return first + sorted(self.shards.keys() - set(first))

    def index_of(self, split: str) -> bytes:
        """Return the contents of the index of a split."""
        return b"".join(self._indexes[split])


def seal_store(
    place: JobPlace,
    corpus: Pieces,
    config: TokenizeConfig,
    job: Mapping[str, Any],
    *,
    ready: Ready,
    tokenizer: Tokenizer,
    classes: tuple[str, ...],
    sealed: Sealed,
) -> Card:
    """Write everything but the shards, the card last, and return it.

    Raises:
        SeitError: nothing was readable, or a shard is missing or of another size.
    """
    if not sealed.shards:
        noun = NOUNS[config.modality][0]
        first = json.loads(sealed.lines[0]) if sealed.lines else {"key": "", "reason": "no inputs"}
        raise SeitError(
            f"no {noun} of {corpus.source} could be read; no store was made "
            f"({shown(first['key'])}: {first['reason']})"
        )
    _check_sizes(place, sealed, len(corpus.pieces))
    contents = {
        CODEBOOK_NAME: place.codebook(),
        TOKENIZER_NAME: stored_tokenizer_bytes(tokenizer, embed=config.embed_tokenizer),
        SKIPPED_NAME: b"".join(sealed.lines),
        **{index_name(split): sealed.index_of(split) for split in sealed.splits},
    }
    for name, data in contents.items():
        place.folder.write(name, data)
    files = tuple(record_of(name, data) for name, data in contents.items())
    card = Card(
        tokenizer=describe_tokenizer(tokenizer),
        codec=ready.codec,
        container=CONTAINERS[0],
        block_samples=BLOCK_SAMPLES,
        classes=classes,
        splits={split: tuple(sealed.shards[split]) for split in sealed.splits},
        files=files,
        skipped=sealed.skipped,
        job=job,
        quality=dict(ready.quality),
        source_bytes=sealed.source_bytes,
    )
    place.write_card(card)
    return card


def label_warnings(corpus: Pieces, classes: tuple[str, ...], sealed: Sealed) -> list[str]:
    """Return warnings about classes and labels of a finished store."""
    total = sum(sum(counts.values()) for counts in sealed.counts.values())
    unlabelled = sum(counts[-1] for counts in sealed.counts.values())
    lines = []
    if not classes:
        lines.append(f"none of {total:,} samples has a label")
    elif unlabelled:
        lines.append(f"{unlabelled:,} of {total:,} samples have no label")
    learned = [classes[label] for label in sorted(sealed.counts.get("train", ())) if label >= 0]
    lines += label_remarks(classes, learned or classes, is_folder=corpus.reader.kind == "folder")
    lines += compare_splits(classes, sealed.counts)
    return [*corpus.warnings, *lines, *sealed.remarks.warnings()]


def _check_sizes(place: JobPlace, sealed: Sealed, num_pieces: int) -> None:
    """Compare the shards at the place with their records, and forget pieces that lack some.

    Raises:
        SeitError: some are missing or of another size.
    """
    faults = []
    for record, size in place.sizes_of(
        record for name in sealed.splits for record in sealed.shards[name]
    ):
        if size != record.bytes:
            number = int(PurePosixPath(record.file).stem) // SHARDS_OF_PIECE % num_pieces
            for name in (revision_name(number), record_name(number)):
                place.forget(name)
            found = "is missing" if size < 0 else f"has {size:,} bytes"
            faults.append(
                f"{place.locate(record.file)} {found} where {record.bytes:,} were written"
            )
    if faults:
        others = f", and {len(faults) - 1:,} others are not as written" if len(faults) > 1 else ""
        raise SeitError(
            f"{faults[0]}{others}; run the same command again, which makes them once more"
        )
