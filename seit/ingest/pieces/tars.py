"""Tars as pieces: each is read once, from start to end."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from seit.errors import DamagedError, UsageError
from seit.ingest.pieces.piece import Findings, Piece
from seit.ingest.sources.corpus import Draft, Kind, shown
from seit.ingest.sources.label_sets import has_label_set
from seit.ingest.sources.splits import split_of
from seit.ingest.sources.tars import TarRemarks, stream_tar
from seit.modality import Modality


@dataclass(frozen=True)
class TarPieces:
    """Reader of tars; see :class:`~seit.ingest.pieces.piece.PieceSource`."""

    modality: Modality
    overhead: int = 1792  # a header, padding, and a label with its own
    kind: Kind = "webdataset"
    mixes: bool = False
    repeats: bool = False

    def read(self, piece: Piece, findings: Findings) -> Iterator[Draft]:
        """Yield the samples of a tar; damage ends it and is counted as a lost input.

        Raises:
            UsageError: the tar cannot be read, is no uncompressed tar, or has a sample of several
                labels.
            SeitError: a remote server does not respond.
        """
        file = piece.file
        found = TarRemarks(self.modality)
        read = 0
        try:
            for draft in stream_tar(file, found):
                if has_label_set(draft):
                    raise UsageError(
                        f"{shown(draft.key)} has several labels, which pieces do not take; leave "
                        "--plan pieces out"
                    )
                read += 1
                yield draft
        except DamagedError as error:
            reason = f"{error}; {read:,} samples before that were kept"
            findings.lost.append((piece.name, split_of(file) or "train", reason))
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            raise UsageError(f"{shown(piece.location)} cannot be read: {reason}") from None
        for names, sentence in found.groups():
            if names:
                findings.remarks.add(sentence, names[0], len(names))


def tar_pieces(locations: Sequence[str], base: str, sizes: Mapping[str, int]) -> Iterator[Piece]:
    """Yield one piece per tar; ``sizes`` has the bytes of each location."""
    for location in locations:
        yield Piece(location.removeprefix(f"{base}/"), location, sizes[location])
