"""Keys that several pieces have, found within bounded memory when the store is sealed.

Each piece leaves the 64-bit hashes of its keys. They are divided among files on the driver's disk,
16 bytes a sample, and each file is sorted alone. Samples of equal hashes are then read.
"""

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError, SeitError
from seit.ingest.pieces.labels import name_of
from seit.ingest.pieces.piece import PieceRecord
from seit.ingest.pieces.place import JobPlace, record_name
from seit.ingest.sources.corpus import shuffle_rank
from seit.shards import Codec, read_tar_blocks

PARTITION_BYTES = 256 << 20
"""Memory for the hashes of one file."""
MAX_REPEATS = 1_000_000
"""Most samples of equal hashes; a corpus with more was listed twice."""
_ENTRY = np.dtype([("hash", "<u8"), ("piece", "<u4"), ("row", "<u4")])


class Repeats(NamedTuple):
    """Samples that are left out, and why.

    Attributes:
        dropped: piece → file of a shard → rows.
        repeated: number of samples whose key an earlier sample has, with the same label.
        disputed: (key, split, reason) of keys that have several labels or splits; all their
            samples are left out.
    """

    dropped: dict[int, dict[str, tuple[int, ...]]]
    repeated: int
    disputed: list[tuple[str, str, str]]


class _Found(NamedTuple):
    """Sample of a doubtful key."""

    piece: int
    file: str
    row: int
    split: str
    class_name: str | None


def hashes_of(keys: Iterable[str]) -> npt.NDArray[np.uint64]:
    """Return the hashes of keys, which are equal on all machines."""
    return np.fromiter((shuffle_rank(key.encode()) for key in keys), dtype=np.uint64)


def find_repeats(place: JobPlace, codec: Codec, records: Iterable[PieceRecord]) -> Repeats:
    """Find keys that occur more than once; ``records`` are read twice.

    Raises:
        SeitError: there are too many, or the disk of temporary files is full.
        DamagedError: the hashes of a piece are missing.
    """
    doubtful = _doubtful_rows(place, records)
    by_key: dict[str, list[_Found]] = defaultdict(list)
    for number, record in enumerate(records):
        if number in doubtful:
            for key, found in _read(place, codec, number, record, doubtful[number]):
                by_key[key].append(found)
    return _judge(by_key)


def _judge(by_key: dict[str, list[_Found]]) -> Repeats:
    dropped: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    repeated = 0
    disputed = []
    for key, found in by_key.items():
        if len(found) == 1:
            continue
        labels = {entry.class_name for entry in found}
        splits = {entry.split for entry in found}
        lost = found[1:]
        if len(splits) > 1:
            names = " and ".join(sorted(splits))
            disputed.append((key, found[0].split, f"it is listed in the splits {names}"))
            lost = found
        elif len(labels) > 1:
            disputed.append((key, found[0].split, "it is listed with several labels"))
            lost = found
        else:
            repeated += len(lost)
        for entry in lost:
            dropped[entry.piece][entry.file].append(entry.row)
    return Repeats(
        {
            piece: {file: tuple(sorted(rows)) for file, rows in files.items()}
            for piece, files in dropped.items()
        },
        repeated,
        disputed,
    )


def _doubtful_rows(
    place: JobPlace, records: Iterable[PieceRecord]
) -> dict[int, npt.NDArray[np.uint32]]:
    """Return the rows of each piece whose hash occurs more than once."""
    counts = [record.samples for record in records]
    num_files = max(1, -(-sum(counts) * _ENTRY.itemsize // PARTITION_BYTES))
    doubtful: dict[int, list[int]] = defaultdict(list)
    num_doubtful = 0
    with tempfile.TemporaryDirectory(prefix="seit-") as folder:
        paths = [Path(folder) / f"{number}" for number in range(num_files)]
        _divide(place, counts, paths)
        for path in paths:
            entries = np.fromfile(path, dtype=_ENTRY)
            path.unlink()
            if not len(entries):
                continue
            entries.sort(order="hash", kind="stable")
            same = entries["hash"][1:] == entries["hash"][:-1]
            chosen = entries[np.append(same, False) | np.insert(same, 0, False)]
            num_doubtful += len(chosen)
            if num_doubtful > MAX_REPEATS:
                raise SeitError(
                    f"more than {MAX_REPEATS:,} samples have a key that another one has, so the "
                    "corpus is listed twice; remove one listing and pass --overwrite"
                )
            for piece, row in zip(chosen["piece"].tolist(), chosen["row"].tolist(), strict=True):
                doubtful[piece].append(row)
    return {piece: np.array(sorted(rows), dtype=np.uint32) for piece, rows in doubtful.items()}


def _divide(place: JobPlace, counts: Sequence[int], paths: Sequence[Path]) -> None:
    """Write the hashes of all pieces into files by their remainders."""
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        for number, count in enumerate(counts):
            hashes = np.frombuffer(place.read_hashes(record_name(number)), dtype="<u8")
            if len(hashes) != count:
                raise DamagedError(
                    f"the hashes of piece {number} at {place} are missing or damaged; pass "
                    "--overwrite to begin the job again"
                )
            entries = np.empty(count, dtype=_ENTRY)
            entries["hash"], entries["piece"] = hashes, number
            entries["row"] = np.arange(count)
            of_file = hashes % np.uint64(len(paths))
            for part, file in enumerate(files):
                file.write(entries[of_file == part].tobytes())


def _read(
    place: JobPlace,
    codec: Codec,
    number: int,
    record: PieceRecord,
    rows: npt.NDArray[np.uint32],
) -> Iterator[tuple[str, _Found]]:
    """Yield the keys of the rows of a piece, with their samples."""
    first = 0
    wanted = set(rows.tolist())
    for shard in record.shards:
        if not wanted.isdisjoint(range(first, first + shard.record.samples)):
            row = 0
            for block in read_tar_blocks(place.folder, shard.record.file, codec):
                for key, label in zip(block.keys, block.labels.tolist(), strict=True):
                    if first + row in wanted:
                        name = name_of(record, label)
                        yield key, _Found(number, shard.record.file, row, shard.split, name)
                    row += 1
        first += shard.record.samples
