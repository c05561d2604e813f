"""Define the changes that make variants of golden stores, and helpers to change tars."""

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
    """Describe a variant of ``store``: its changes, and the error of a reader.

    ``file`` and ``block`` are damaged; ``message`` is a part of seit's message; ``found_by`` is
    ``"reader"``, or ``"verifier"`` if only a verifier looks there.
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
    """Replace bytes of a file, starting at ``offset``."""
    return {"do": "replace", "file": file, "offset": offset, "hex": data.hex()}


def write_file(file: str, data: bytes) -> Change:
    """Replace the content of a file."""
    return {"do": "write", "file": file, "hex": data.hex()}


def card_entry(*at: str | int, value: Any) -> Change:
    """Change the entry of the card at the path ``at``."""
    return {"do": "card", "at": list(at), "value": value}


RESEAL: Change = {"do": "reseal"}


def open_golden(golden: Path, name: str) -> Store:
    """Open a golden store."""
    return seit.open(golden / name / "store")


def read_golden(golden: Path, name: str, file: str) -> bytes:
    """Read a file of a golden store."""
    return (golden / name / "store" / file).read_bytes()


def with_crc(data: bytes) -> bytes:
    """Return ``data`` with its last four bytes replaced by the CRC-32C of the others."""
    return data[:-4] + struct.pack("<I", google_crc32c.value(data[:-4]))


def patched(data: bytes, offset: int, change: bytes) -> bytes:
    """Return a frame with other bytes at ``offset`` and a correct checksum."""
    return with_crc(data[:offset] + change + data[offset + len(change) :])


def tar_shard(golden: Path, store: str, split: str = "train", number: int = 0) -> TarShard:
    """Return a shard of a golden store of tars."""
    shard = open_golden(golden, store)[split].shards[number]
    assert isinstance(shard, TarShard), "a store of tars"
    return shard


def frame_place(shard: TarShard, block: int, kind: Kind) -> tuple[int, int]:
    """Return offset and size of a frame in its tar."""
    return shard.places[block].frames[kind]


def header_change(tar: bytes, header: int, offset: int, change: bytes, file: str = TAR) -> Change:
    """Change bytes of the tar header at ``header`` and correct its checksum."""
    new = bytearray(tar[header : header + 512])
    new[offset : offset + len(change)] = change
    new[148:156] = b" " * 8
    new[148:156] = b"%06o\0 " % sum(new)
    first = min(offset, 148)
    last = max(offset + len(change), 156)
    return replace_bytes(file, header + first, bytes(new[first:last]))


def member_changes(golden: Path, store: str, block: int, kind: Kind, frame: bytes) -> list[Change]:
    """Replace a frame of the first tar, and adapt header and index to its size."""
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
    """Return a frame of the first tar of ``train``."""
    place, size = frame_place(tar_shard(golden, store), block, kind)
    return read_golden(golden, store, TAR)[place : place + size]
