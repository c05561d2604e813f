"""Records of the finished pieces of a job, on the driver's disk."""

import tempfile
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path

from seit.files import explained_writes
from seit.ingest.pieces.piece import PieceRecord

_ABSENT = -1


class Finished:
    """Records by number, compressed in a temporary file: 16 bytes of memory each.

    A record has the counts of the labels of its samples, so with many classes those of all pieces
    would not fit into memory.
    """

    def __init__(self, count: int) -> None:
        self._file = tempfile.TemporaryFile(prefix="seit-")  # noqa: SIM115 - as long as the job
        self._places = array("q", [_ABSENT] * count)
        self._sizes = array("q", [0] * count)
        self._end = 0

    def __setitem__(self, number: int, record: PieceRecord) -> None:
        data = zlib.compress(record.to_json(), 1)
        with explained_writes(Path(tempfile.gettempdir())):
            self._file.seek(self._end)
            self._file.write(data)
        self._places[number], self._sizes[number] = self._end, len(data)
        self._end += len(data)

    def __iter__(self) -> Iterator[PieceRecord]:
        for place, size in zip(self._places, self._sizes, strict=True):
            assert place != _ABSENT, "all pieces are finished when they are read"
            self._file.seek(place)
            yield PieceRecord.from_json(zlib.decompress(self._file.read(size)))

    @property
    def missing(self) -> list[int]:
        """Numbers of the pieces without a record."""
        return [number for number, place in enumerate(self._places) if place == _ABSENT]

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
