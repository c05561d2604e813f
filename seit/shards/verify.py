"""Is every byte of a store intact? Checks sizes, sha256 sums and the checksum of every block."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from seit.errors import DamagedError
from seit.files import sha256_of
from seit.shards.card import CARD_NAME, FileRecord
from seit.shards.frames import Kind
from seit.shards.store import Shard, Store, open_store


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong: the file, the block where one is to blame, and the reason."""

    file: str
    block: int | None
    reason: str


@dataclass(frozen=True)
class Verification:
    """The outcome: blocks looked at, bytes read, and all damage found."""

    blocks: int
    bytes: int
    damage: tuple[Damage, ...]

    @property
    def ok(self) -> bool:
        """True when nothing is damaged."""
        return not self.damage


def verify_store(
    path: str | Path, *, progress: Callable[[int, int], None] | None = None
) -> Verification:
    """Read every file of a store and check it.

    ``progress`` is called with (files done, files in all). Files that the card does not name are
    reported too, apart from those of an unfinished job.

    Raises:
        UsageError: there is no store at ``path``, or an intact one of a newer version.
        SeitError: its card may not be read.
    """
    try:
        store = open_store(path)
    except DamagedError as error:
        return Verification(0, 0, (Damage(CARD_NAME, None, str(error)),))
    damage: list[Damage] = []
    blocks = 0
    shards = [shard for split in store.values() for shard in split.shards]
    total = len(store.card.files) + len(shards)
    for number, record in enumerate(store.card.files):
        damage += _check_file(store.path, record)
        if progress:
            progress(number + 1, total)
    for number, shard in enumerate(shards):
        shard_damage = list(_check_file(store.path, shard.record))
        found, count = _check_blocks(store, shard)
        blocks += count
        damage += found or shard_damage
        if progress:
            progress(len(store.card.files) + number + 1, total)
    damage += _strangers(store)
    return Verification(blocks, store.num_bytes, tuple(damage))


def _check_file(store: Path, record: FileRecord) -> Iterator[Damage]:
    path = store / record.file
    try:
        size = path.stat().st_size
        if size != record.bytes:
            yield Damage(record.file, None, f"has {size} bytes where the card says {record.bytes}")
        elif sha256_of(path) != record.sha256:
            yield Damage(record.file, None, "does not match its sha256")
    except FileNotFoundError:
        yield Damage(record.file, None, "is missing")
    except OSError as error:
        yield Damage(record.file, None, f"cannot be read: {error.strerror}")


def _check_blocks(store: Store, shard: Shard) -> tuple[list[Damage], int]:
    try:
        places = shard.places
    except DamagedError as error:
        return [Damage(shard.record.file, None, str(error))], 0
    damage = []
    for block, place in enumerate(places):
        for kind in place.frames:
            try:
                column = shard.open_block(block, kind)
            except DamagedError as error:
                damage.append(Damage(shard.record.file, block, str(error.__cause__ or error)))
                continue
            if kind is Kind.LABELS:
                low, high = int(column.min()), int(column.max())
                if low < -1 or high >= len(store.classes):
                    reason = f"labels from {low} to {high} for {len(store.classes)} classes"
                    damage.append(Damage(shard.record.file, block, reason))
    return damage, len(places)


def _strangers(store: Store) -> Iterator[Damage]:
    known = {record.file for record in store.card.files} | {CARD_NAME}
    known |= {shard.file for shards in store.card.splits.values() for shard in shards}
    for path in sorted(store.path.rglob("*")):
        relative = path.relative_to(store.path)
        if path.is_file() and str(relative) not in known and not relative.parts[0].startswith("."):
            name = os.fsencode(relative).decode(errors="replace")
            yield Damage(name, None, "is not named by the card")
