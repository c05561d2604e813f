"""The words that variants of golden stores are written in, and what tars take to be changed."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import google_crc32c

import seit
from seit.shards import Store
from seit.shards.frames import Kind
from seit.shards.index import encode_index
from seit.shards.tar_shard import TarShard

Change = dict[str, Any]
Variant = dict[str, Any]
CARD = "store.json"
CODEBOOK = "codebook.safetensors"
TAR = "train/00000.tar"
INDEX = "train/blocks.index"
_SIZE_FIELD = 124


def variant(
    rule: str,
    name: str,
    store: str,
    changes: Sequence[Change],
    message: str,
    *,
    file: str,
    block: int | None = None,
    kind: str = "damaged",
    found_by: str = "reader",
) -> Variant:
    """Describe a variant of ``store``: what is changed, and what a reader says of it.

    ``file`` and ``block`` are to blame; ``message`` is a part of what seit says; ``found_by`` is
    ``"reader"``, or ``"verifier"`` where only that looks.
    """
    expected: dict[str, Any] = {"kind": kind, "file": file, "message": message}
    if block is not None:
        expected["block"] = block
    return {
        "name": name,
        "rule": rule,
        "store": store,
        "changes": list(changes),
        "found_by": found_by,
        "expect": expected,
    }


def replace_bytes(file: str, offset: int, data: bytes) -> Change:
    """Put other bytes into a file, from ``offset`` on."""
    return {"do": "replace", "file": file, "offset": offset, "hex": data.hex()}


def write_file(file: str, data: bytes) -> Change:
    """Put other bytes in place of a file."""
    return {"do": "write", "file": file, "hex": data.hex()}


def card_entry(*at: str | int, value: Any) -> Change:
    """Give the entry of the card at the path ``at`` another value."""
    return {"do": "card", "at": list(at), "value": value}


RESEAL: Change = {"do": "reseal"}


def open_golden(golden: Path, name: str) -> Store:
    """Open a golden store."""
    return seit.open(golden / name / "store")


def read_golden(golden: Path, name: str, file: str) -> bytes:
    """Read a file of a golden store."""
    return (golden / name / "store" / file).read_bytes()


def with_crc(data: bytes) -> bytes:
    """``data`` with its last four bytes replaced by the CRC-32C of the others."""
    return data[:-4] + struct.pack("<I", google_crc32c.value(data[:-4]))


def patched(data: bytes, offset: int, change: bytes) -> bytes:
    """A frame with other bytes at ``offset`` and a right checksum."""
    return with_crc(data[:offset] + change + data[offset + len(change) :])


def tar_shard(golden: Path, store: str, split: str = "train", number: int = 0) -> TarShard:
    """A shard of a golden store of tars."""
    shard = open_golden(golden, store)[split].shards[number]
    assert isinstance(shard, TarShard), "a store of tars"
    return shard


def frame_place(shard: TarShard, block: int, kind: Kind) -> tuple[int, int]:
    """Where a frame lies in its tar: offset and size."""
    return shard.places[block].frames[kind]


def header_change(tar: bytes, header: int, offset: int, change: bytes, file: str = TAR) -> Change:
    """Change bytes of the tar header at ``header`` and put its checksum right."""
    new = bytearray(tar[header : header + 512])
    new[offset : offset + len(change)] = change
    new[148:156] = b" " * 8
    new[148:156] = b"%06o\0 " % sum(new)
    first = min(offset, 148)
    last = max(offset + len(change), 156)
    return replace_bytes(file, header + first, bytes(new[first:last]))


def member_changes(golden: Path, store: str, block: int, kind: Kind, frame: bytes) -> list[Change]:
    """Put another frame, perhaps of another size, in the first tar: header and index say so."""
    shard = tar_shard(golden, store)
    place, size = frame_place(shard, block, kind)
    room = -(-size // 512) * 512
    assert len(frame) <= room, "the frame does not fit where the other was"
    tar = read_golden(golden, store, TAR)
    changes = [replace_bytes(TAR, place, frame.ljust(size, b"\0"))]
    if len(frame) != size:
        sizes = shard.places.sizes_n4.copy()
        sizes[block, kind - 1] = len(frame)
        changes.append(header_change(tar, place - 512, _SIZE_FIELD, b"%011o" % len(frame)))
        changes.append(replace_bytes(INDEX, 0, encode_index(sizes)))
    return changes


def frame_of(golden: Path, store: str, block: int, kind: Kind) -> bytes:
    """A frame of the first tar of ``train``."""
    place, size = frame_place(tar_shard(golden, store), block, kind)
    return read_golden(golden, store, TAR)[place : place + size]
