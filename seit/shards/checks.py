"""Checks of a single file of a store: its size, checksum and blocks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError
from seit.shards.card import FileRecord
from seit.shards.folders import Folder, LocalFolder
from seit.shards.frames import Kind
from seit.shards.index import BlockPlaces
from seit.shards.shard import Shard
from seit.shards.split import Split
from seit.shards.tar_shard import TarShard
from seit.shards.zarr import ZarrShard

MAX_DUPLICATES = 20
"""Most duplicate keys named per split; further ones are counted."""
KeyHashes = Mapping[tuple[int, int], npt.NDArray[np.int64]]
"""Hashes of the keys of each block, by (shard number, block number)."""


@dataclass(frozen=True)
class Damage:
    """One fault: the file, the block if a single one is damaged, and the reason."""

    file: str
    block: int | None
    reason: str


@dataclass
class FileReport:
    """Findings about a file; ``key_hashes`` covers the blocks whose keys are intact."""

    damage: list[Damage] = field(default_factory=list)
    num_blocks: int = 0
    key_hashes: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)


def check_file(folder: Folder, record: FileRecord) -> FileReport:
    """Compare a file with its record in the card."""
    try:
        return FileReport(list(_compare(folder, record)))
    except OSError as error:
        return FileReport([_unreadable(record, error)])


def check_shard_file(
    shard: Shard, record: FileRecord, *, num_classes: int, kinds: Sequence[Kind]
) -> FileReport:
    """Check a file that holds columns of a shard: also its index and the blocks of ``kinds``."""
    folder = shard.folder
    try:
        size = folder.size(record.file)
        if size > record.bytes and not isinstance(folder.place, LocalFolder):  # too large to fetch
            return FileReport([_other_size(record, size)])
        with folder.fetched(record.file) as local:
            return _check_fetched(shard, record, local, num_classes, kinds)
    except OSError as error:
        return FileReport([_unreadable(record, error)])


def _compare(folder: Folder, record: FileRecord) -> Iterator[Damage]:
    size = folder.size(record.file)
    if size != record.bytes:
        yield _other_size(record, size)
    elif folder.sha256(record.file) != record.sha256:
        yield Damage(record.file, None, "does not match its sha256")


def _other_size(record: FileRecord, size: int) -> Damage:
    return Damage(record.file, None, f"has {size} bytes where the card says {record.bytes}")


def _unreadable(record: FileRecord, error: OSError) -> Damage:
    if isinstance(error, FileNotFoundError):
        return Damage(record.file, None, "is missing")
    return Damage(record.file, None, f"cannot be read: {error.strerror or error}")


def _check_fetched(
    shard: Shard, record: FileRecord, local: LocalFolder, num_classes: int, kinds: Sequence[Kind]
) -> FileReport:
    report = FileReport()
    whole = list(_compare(local, record))
    held = [kind for kind in kinds if shard.files.get(kind) == record]
    if isinstance(shard, TarShard):
        found = _find_in_tar(shard, local, report, is_whole=not whole)
    else:
        assert isinstance(shard, ZarrShard), "there is no other container"
        found = _find_in_group(shard, local, report, held)
    if found:
        _check_blocks(found, record, num_classes, held, report)
    report.damage = report.damage or whole
    if whole:
        report.key_hashes.clear()  # keys of another file are not this split's
    return report


def _find_in_tar(
    shard: TarShard, local: LocalFolder, report: FileReport, *, is_whole: bool
) -> Shard | None:
    """Return the shard in ``local`` after comparing its tar headers with its index."""
    index, file = shard.index, shard.record.file
    headed: BlockPlaces | None = None
    indexed: BlockPlaces | None = None
    try:
        headed = index.places_by_headers(shard.number, local)
    except DamagedError as error:
        report.damage.append(Damage(file, None, str(error)))
    if index.record:
        try:
            indexed = index.places(shard.number)
        except DamagedError:
            pass  # damage of the index is reported on the index file
        else:
            if headed and not np.array_equal(headed.sizes_n4, indexed.sizes_n4):
                blamed = index.record.file if is_whole else file
                reason = f"the index and the tar headers of {file} disagree"
                report.damage.append(Damage(blamed, None, reason))
    places = indexed or headed
    return shard.within(local, places) if places else None


def _find_in_group(
    shard: ZarrShard, local: LocalFolder, report: FileReport, held: Sequence[Kind]
) -> Shard | None:
    """Return the shard in ``local``, if the index of its column ``held`` is intact."""
    found = shard.within(local)
    for kind in held:
        try:
            found.check_places(kind)
        except DamagedError as error:
            report.damage.append(Damage(shard.files[kind].file, None, str(error)))
            return None
    return found


def _check_blocks(
    shard: Shard, record: FileRecord, num_classes: int, held: Sequence[Kind], report: FileReport
) -> None:
    if record == shard.record:
        report.num_blocks = shard.num_blocks
    for block in range(shard.num_blocks):
        for kind in held:
            try:
                column = shard.open_block(block, kind)
            except DamagedError as error:
                reason = str(error.__cause__ or error)
                report.damage.append(Damage(record.file, block, reason))
                continue
            if kind is Kind.KEYS:
                report.key_hashes[block] = np.fromiter(map(hash, column), dtype=np.int64)
            if kind is Kind.LABELS:
                low, high = int(column.min()), int(column.max())
                if low < -1 or high >= num_classes:
                    reason = f"labels from {low} to {high} for {num_classes} classes"
                    report.damage.append(Damage(record.file, block, reason))


def duplicate_keys(split: Split, hashes: KeyHashes) -> Iterator[Damage]:
    """Yield keys that occur more than once in a split, by the ``hashes`` of its intact blocks."""
    if not hashes:
        return
    ordered = np.concatenate(list(hashes.values()))
    ordered.sort()
    suspected = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not suspected.size:
        return
    first_rows: dict[str, int] = {}
    num_found = 0
    for (number, block), found in hashes.items():
        shard = split.shards[number]
        places = np.flatnonzero(np.isin(found, suspected)).tolist()
        keys = shard.open_block(block, Kind.KEYS) if places else ()
        for place in places:
            row = shard.rows_of(block)[place]
            first = first_rows.setdefault(keys[place], row)
            num_found += first != row
            if first != row and num_found <= MAX_DUPLICATES:
                reason = f"the key {keys[place]!r} of sample {row} is that of sample {first} too"
                yield Damage(shard.files[Kind.KEYS].file, block, reason)
    if num_found > MAX_DUPLICATES:
        reason = f"{num_found - MAX_DUPLICATES} more keys of split {split.name!r} occur twice"
        yield Damage(split.shards[0].files[Kind.KEYS].file, None, reason)
