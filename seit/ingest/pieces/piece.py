"""Pieces of a corpus, the records of finished ones, and what a source of pieces can do."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

import msgspec

from seit.ingest.inputs.remarks import RemarkCounts
from seit.ingest.sources.corpus import Draft, Kind, SourceFile
from seit.shards import ShardRecord


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a corpus that one worker reads from start to end.

    Attributes:
        name: its file's path below the corpus, in messages and keys.
        location: absolute path or URL of its file.
        num_bytes: size of the file at the listing.
        start: number of its first row group, offset of its first byte, or number of its share.
        stop: end of that range, or number of shares; 0 for a whole file.
    """

    name: str
    location: str
    num_bytes: int
    start: int = 0
    stop: int = 0

    @property
    def file(self) -> SourceFile:
        """The file, for rules about its name and folder."""
        return SourceFile(self.location, self.name, self.location.split("/")[-2])

    @property
    def identity(self) -> Sequence[object]:
        """Facts that tell it from other pieces, and from itself before a change, as JSON."""
        return [self.name, self.num_bytes, self.start, self.stop]

    @property
    def shown(self) -> str:
        """Name of the piece in messages."""
        return f"{self.name}[{self.start}:{self.stop}]" if self.stop else self.name


@dataclass(frozen=True)
class PieceShard:
    """Finished shard of a piece.

    Attributes:
        split: its split.
        record: entry of the card.
        sizes: sizes of the frames of each block, as in the index of the split.
        labels: label → samples.
    """

    split: str
    record: ShardRecord
    sizes: tuple[tuple[int, int, int, int], ...]
    labels: Mapping[int, int]


@dataclass(frozen=True)
class PieceRecord:
    """Record of a finished piece.

    Attributes:
        inputs: files in it, including unreadable ones.
        shards: its shards.
        names: classes of the labels from :data:`~seit.ingest.pieces.labels.NAMED` on.
        skipped: (key, split, reason) of each unreadable input.
        source_bytes: bytes of the inputs that became samples.
        remarks: remark → number of inputs, and key of the first.
        seconds: stage → seconds that its worker waited for it.
        revision: digest of the changes that a revision made; nothing for the piece as it was made.
    """

    inputs: int
    shards: tuple[PieceShard, ...]
    names: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str, str], ...] = ()
    source_bytes: int = 0
    remarks: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    revision: str = ""

    @property
    def samples(self) -> int:
        """Number of samples."""
        return sum(shard.record.samples for shard in self.shards)

    @classmethod
    def from_json(cls, data: bytes | str) -> Self:
        """Read the output of :meth:`to_json`.

        Raises:
            ValueError: the data is something else.
        """
        try:
            return msgspec.json.decode(data, type=cls, strict=False)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ValueError(str(error)) from error

    def to_json(self) -> bytes:
        """Return the record as JSON."""
        return msgspec.json.encode(self)


class Findings:
    """Remarks on a piece, and inputs that are left out."""

    def __init__(self) -> None:
        self.read = 0
        """Inputs that could be read."""
        self.remarks = RemarkCounts()
        self.lost: list[tuple[str, str, str]] = []
        """(key, split, reason) of inputs that are lost before they are decoded."""
        self.unreadable: list[tuple[str, str, str]] = []
        """(key, split, reason) of inputs that cannot be decoded."""

    @property
    def skipped(self) -> tuple[tuple[str, str, str], ...]:
        """All inputs that are left out; how far is read ahead does not change their order."""
        return (*self.lost, *self.unreadable)


class PieceSource(Protocol):
    """Source of pieces; it pickles, so that workers on other machines have it."""

    @property
    def kind(self) -> Kind:
        """Kind of the corpus."""

    @property
    def mixes(self) -> bool:
        """True if the inputs of a piece are put into the order of a hash of their keys."""

    @property
    def repeats(self) -> bool:
        """True if two pieces may have inputs of the same key."""

    @property
    def overhead(self) -> int:
        """Bytes of the file of a piece per input, beyond the input's own; an estimate."""

    def read(self, piece: Piece, findings: Findings) -> Iterator[Draft]:
        """Yield the inputs of a piece, perhaps with their bytes as location.

        Raises:
            UsageError: the piece cannot be read, or has changed since the listing.
            SeitError: a remote server does not respond.
        """


@dataclass(frozen=True)
class Pieces:
    """Corpus as a list of pieces.

    Attributes:
        source: the source as given.
        reader: reader of its pieces.
        pieces: the pieces, in the order of their shards.
        samples: number of its inputs, if it is known.
        classes: classes in the order of their labels, if they are known before anything is read.
        warnings: one line each.
        columns: names of the columns of a table of files, which say what its labels are.
    """

    source: str
    reader: PieceSource
    pieces: Sequence[Piece]
    samples: int | None = None
    classes: tuple[str, ...] | None = None
    warnings: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def expect_samples(self, mean_bytes: float) -> int:
        """Return the number of inputs, estimated from their mean size if it is not known."""
        if self.samples is not None:
            return self.samples
        files = {piece.location: piece.num_bytes for piece in self.pieces}
        return round(sum(files.values()) / max(mean_bytes + self.reader.overhead, 1))

    @property
    def fingerprint(self) -> str:
        """The sha256, hex, over kind, columns, and names, sizes and ranges of the pieces."""
        facts = ["pieces", self.reader.kind, *self.columns]
        digest = hashlib.sha256(json.dumps(facts).encode())
        for piece in self.pieces:
            digest.update(json.dumps(piece.identity).encode())
        return digest.hexdigest()
