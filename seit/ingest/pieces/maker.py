"""Making of one piece: read, decode, encode, write its shards, and record it.

Legend: n samples of a group, H W token grid.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from seit.errors import SeitError, UnreadableError
from seit.ingest.batches import FileSample, encode_samples, metadata_of, samples_of
from seit.ingest.config import TokenizeConfig
from seit.ingest.encoder import Encoder
from seit.ingest.inputs.reader import Decoded, Reader
from seit.ingest.pieces.duplicates import hashes_of
from seit.ingest.pieces.labels import LabelNumbers
from seit.ingest.pieces.piece import Findings, Piece, PieceRecord, PieceShard, PieceSource
from seit.ingest.pieces.place import JobPlace, record_name
from seit.ingest.pieces.waits import Waits
from seit.ingest.shard import refuse_skipped
from seit.ingest.sources import Instance
from seit.ingest.sources.corpus import Draft, shuffle_rank
from seit.ingest.sources.splits import hash_fraction
from seit.shards import (
    BLOCK_SAMPLES,
    Block,
    Codec,
    LocalFolder,
    ShardRecord,
    ShardWriter,
    check_split_names,
    read_frame_sizes,
)
from seit.tokenizers import Tokenizer

_Ids: TypeAlias = npt.NDArray[np.unsignedinteger]
SHARDS_OF_PIECE = 1000
"""Most shards of a piece in a split; the number of a shard is that of its piece times this."""


class PieceTask(NamedTuple):
    """Piece and its number in the corpus."""

    number: int
    piece: Piece

    @property
    def name(self) -> str:
        """Name of its record."""
        return record_name(self.number)

    @property
    def revision(self) -> str:
        """Digest of changes in its record: there are none."""
        return ""


class PieceMaker:
    """Maker of pieces, whose shards depend only on the piece, the settings and the fit.

    Args:
        source: reader of pieces.
        place: place of the job.
        classes: the classes, if they are known beforehand.
        tokenizer: tokenizer, on its device.
        codec: codec of the shards.
        encoder: encoder of batches.
        reader: decoder of inputs.
        config: settings of the job.
    """

    def __init__(
        self,
        source: PieceSource,
        place: JobPlace,
        *,
        classes: Sequence[str] | None,
        tokenizer: Tokenizer,
        codec: Codec,
        encoder: Encoder,
        reader: Reader,
        config: TokenizeConfig,
    ) -> None:
        self._source = source
        self._place = place
        self._classes = classes
        self._tokenizer = tokenizer
        self._codec = codec
        self._encoder = encoder
        self._reader = reader
        self._config = config
        self._job = place.read_job()

    def make(self, task: PieceTask) -> PieceRecord:
        """Make the shards of a piece and record it as done.

        Raises:
            UsageError: the piece cannot be read.
            SeitError: an input is unreadable and ``strict`` is set, the place cannot be written,
                or it belongs to another job now.
        """
        findings = Findings()
        numbers = LabelNumbers(self._classes)
        waits = Waits()
        with self._place.scratch() as scratch:
            shards = _Shards(scratch, task.number, self._codec, self._config.shard_samples)
            source_bytes = 0
            good = waits.each(self._good(task.piece, numbers, findings), "inputs")
            encoded = encode_samples(_light(samples_of(good)), self._tokenizer, self._encoder)
            for group, ids_nHW in waits.each(encoded, "codes"):
                with waits.during("writing"):
                    shards.add(group, ids_nHW)
                source_bytes += sum(sample.num_bytes for sample in group)
            with waits.during("writing"):
                made = shards.close()
                if self._place.read_job() != self._job:
                    raise SeitError(f"{self._place} belongs to another job now")
                for shard in made:
                    self._place.put(scratch, shard.record)
                if self._source.repeats:
                    self._place.write_hashes(task.name, hashes_of(shards.keys).tobytes())
            record = PieceRecord(
                inputs=findings.read + len(findings.skipped),
                shards=tuple(made),
                names=numbers.names,
                skipped=findings.skipped,
                source_bytes=source_bytes,
                remarks=findings.remarks.counts,
                seconds={str(name): spent for name, spent in waits.seconds.items()},
            )
            self._place.write_record(scratch, task.name, record)
        return record

    def _good(self, piece: Piece, numbers: LabelNumbers, findings: Findings) -> Iterator[Decoded]:
        """Yield the readable inputs of a piece, in the order of their samples."""
        for entry in self._reader.read(self._instances(piece, numbers, findings)):
            for sentence in entry.remarks:
                findings.remarks.add(sentence, entry.instance.key)
            if entry.samples:
                findings.read += 1
                yield entry
                continue
            self._lose(findings.unreadable, entry.instance.key, entry.instance.split, entry.reason)

    def _instances(
        self, piece: Piece, numbers: LabelNumbers, findings: Findings
    ) -> Iterator[Instance]:
        """Yield the inputs of a piece in writing order, with their splits and labels."""
        drafts = self._source.read(piece, findings)
        if self._source.mixes:
            drafts = iter(_mixed(list(drafts)))
        for draft in drafts:
            split = draft.split or split_by_hash(draft.key, self._config.val_fraction)
            try:
                label = numbers.number(draft.class_name)
            except UnreadableError as error:
                self._lose(findings.lost, draft.key, split, str(error))
                continue
            yield Instance(draft.key, split, label, draft.location, draft.metadata, draft.num_bytes)
        if self._config.strict:
            refuse_skipped([(key, reason) for key, _, reason in findings.lost])

    def _lose(self, lost: list[tuple[str, str, str]], key: str, split: str, reason: str) -> None:
        lost.append((key, split, reason))
        if self._config.strict:
            refuse_skipped([(key, reason)])


def _light(
    samples: Iterable[tuple[FileSample, npt.NDArray[Any]]],
) -> Iterator[tuple[FileSample, npt.NDArray[Any]]]:
    """Yield samples without the bytes of their files, which need not wait for the shard."""
    for (instance, num_bytes), values in samples:
        yield FileSample(replace(instance, location=""), num_bytes), values


def split_by_hash(key: str, val_fraction: float) -> str:
    """Return the split of an input whose source names none."""
    return "val" if hash_fraction(key) < val_fraction else "train"


def _mixed(drafts: list[Draft]) -> list[Draft]:
    """Return the inputs of a piece in the order of a hash, each block sorted by key."""
    drafts.sort(key=lambda draft: (shuffle_rank(draft.key.encode()), draft.key))
    for start in range(0, len(drafts), BLOCK_SAMPLES):
        block = slice(start, start + BLOCK_SAMPLES)
        drafts[block] = sorted(drafts[block], key=lambda draft: draft.key)
    return drafts


class _Shards:
    """Shards of a piece, written one at a time from the samples of their split."""

    def __init__(self, folder: Path, piece: int, codec: Codec, most: int) -> None:
        self._folder = folder
        self._piece = piece
        self._codec = codec
        self._most = most
        self._waiting: dict[str, tuple[list[FileSample], list[_Ids]]] = {}
        self._made: dict[str, list[PieceShard]] = {}
        self._keys: dict[str, list[str]] = {}

    def add(self, samples: list[FileSample], ids_nHW: _Ids) -> None:
        """Add samples of any splits with their ids."""
        splits = [sample.instance.split for sample in samples]
        for split in dict.fromkeys(splits):
            if split not in self._waiting:
                check_split_names([*self._waiting, split])
                self._waiting[split] = [], []
            rows = [row for row, name in enumerate(splits) if name == split]
            held, ids = self._waiting[split]
            held += [samples[row] for row in rows]
            ids.append(ids_nHW[rows])
            if len(held) >= self._most:
                self._write(split, self._most)

    def close(self) -> list[PieceShard]:
        """Write the rest, and return all shards, split by split."""
        for split, (held, _) in self._waiting.items():
            if held:
                self._write(split, len(held))
        return list(chain.from_iterable(self._made[split] for split in sorted(self._made)))

    @property
    def keys(self) -> Iterator[str]:
        """Keys of all samples in the order of the shards."""
        return chain.from_iterable(self._keys[split] for split in sorted(self._made))

    def _write(self, split: str, count: int) -> None:
        made = self._made.setdefault(split, [])
        if len(made) == SHARDS_OF_PIECE:
            raise SeitError(
                f"piece {self._piece} has more than {SHARDS_OF_PIECE * self._most:,} samples; "
                "write smaller files, or pass a larger --shard-samples"
            )
        held, parts = self._waiting[split]
        ids_NHW = np.concatenate(parts)
        self._waiting[split] = held[count:], [ids_NHW[count:]]
        labels = np.array([sample.instance.label for sample in held[:count]], dtype=np.int32)
        index = self._piece * SHARDS_OF_PIECE + len(made)
        with ShardWriter(self._folder, split=split, index=index, codec=self._codec) as writer:
            for start in range(0, count, BLOCK_SAMPLES):
                block = slice(start, min(start + BLOCK_SAMPLES, count))
                instances = [sample.instance for sample in held[block]]
                writer.write(
                    Block(
                        tokens=ids_NHW[block],
                        labels=labels[block],
                        keys=tuple(entry.key for entry in instances),
                        metadata=metadata_of(instances),
                    )
                )
        self._keys.setdefault(split, []).extend(entry.instance.key for entry in held[:count])
        made.append(describe_shard(self._folder, split, writer.record, labels))


def describe_shard(
    folder: Path, split: str, record: ShardRecord, labels_N: npt.NDArray[np.int32]
) -> PieceShard:
    """Return the record of a shard in ``folder``, with its frames' sizes and label counts."""
    sizes_n4 = read_frame_sizes(LocalFolder(folder), record.file)
    found, counts = np.unique(labels_N, return_counts=True)
    return PieceShard(
        split,
        record,
        tuple((int(a), int(b), int(c), int(d)) for a, b, c, d in sizes_n4),
        dict(zip(found.tolist(), counts.tolist(), strict=True)),
    )
