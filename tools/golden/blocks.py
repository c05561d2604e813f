"""Damage tars, indexes and columns of blocks: rules 2 to 5 of the format."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from golden.changes import (
    CODEBOOK,
    INDEX,
    RESEAL,
    TAR,
    Change,
    Variant,
    card_entry,
    frame_of,
    frame_place,
    header_change,
    member_changes,
    open_golden,
    patched,
    read_golden,
    replace_bytes,
    tar_shard,
    variant,
    with_crc,
)
from safetensors.numpy import load

from seit.shards import Split, Store
from seit.shards.context import ContextCodec, ContextTables
from seit.shards.frames import Coding, Kind, encode_frame, seal_frame
from seit.shards.index import encode_index


def damaged_tars(golden: Path) -> Iterator[Variant]:
    """Store without an index, which is read by its tar headers."""
    store = "two-codes"
    tar = read_golden(golden, store, TAR)
    shard = tar_shard(golden, store)
    headers = {
        (block, kind): frame_place(shard, block, kind)[0] - 512
        for block in (0, 1)
        for kind in (Kind.TOKENS, Kind.LABELS, Kind.KEYS)
    }
    end = shard.places.end

    def damaged(name: str, changes: Sequence[Change], message: str, by: str = "reader") -> Variant:
        return variant("2", name, store, changes, message, file=TAR, found_by=by)

    def named(block: int, kind: Kind, new: str) -> list[Change]:
        return [header_change(tar, headers[block, kind], 0, new.encode().ljust(100, b"\0"))]

    labels, first = headers[0, Kind.LABELS], headers[0, Kind.TOKENS]
    yield damaged("no shard", [{"do": "remove", "file": TAR}], "missing")
    yield damaged("an empty shard", [{"do": "truncate", "file": TAR, "bytes": 0}], "ends before")
    cut = {"do": "truncate", "file": TAR, "bytes": end}
    yield damaged("a tar without an end", [cut], "before the end of the tar")
    yield damaged("a changed tar header", [replace_bytes(TAR, labels + 40, b"x")], "its checksum")
    no_magic = header_change(tar, labels, 257, b"USTAR")
    yield damaged("a header that is no ustar", [no_magic], "not that of a plain file")
    for what, letter in (
        ("link", b"2"),
        ("folder", b"5"),
        ("pax record", b"x"),
        ("long name", b"L"),
    ):
        change = header_change(tar, labels, 156, letter)
        yield damaged(f"a {what}", [change], "not that of a plain file")
    yield damaged(
        "a size that is no number", [header_change(tar, labels, 124, b"9" * 11)], "states no size"
    )
    longer = header_change(tar, headers[1, Kind.KEYS], 124, b"%011o" % 100_000)
    yield damaged("a member beyond the end", [longer], "ends inside the member")
    yield damaged("an unknown column", named(0, Kind.LABELS, "00000-0000.colours"), "colours")
    yield damaged("a column twice", named(0, Kind.LABELS, "00000-0000.tokens"), "stands twice")
    yield damaged("a column less", named(0, Kind.KEYS, "00000-0000.metadata"), "lacks its keys")
    renamed = [
        change
        for kind, suffix in ((Kind.TOKENS, "tokens"), (Kind.LABELS, "labels"), (Kind.KEYS, "keys"))
        for change in named(1, kind, f"00000-0002.{suffix}")
    ]
    yield damaged("a block is left out", renamed, "block 1 is named '00000-0002'")
    exchanged = [
        *named(0, Kind.TOKENS, "00000-0000.labels"),
        *named(0, Kind.LABELS, "00000-0000.tokens"),
    ]
    yield damaged("columns out of order", exchanged, "do not stand in the order")
    fewer = replace_bytes(TAR, headers[1, Kind.TOKENS], bytes(end - headers[1, Kind.TOKENS]))
    yield damaged("fewer blocks than the card says", [fewer], "holds 1 blocks")
    more = [
        card_entry("splits", "train", "samples", value=3),
        card_entry("splits", "train", "shards", 0, "samples", value=3),
    ]
    yield damaged("more blocks than the card says", more, "holds 2 blocks")
    yield damaged(
        "something behind the end",
        [replace_bytes(TAR, len(tar) - 1, b"x")],
        "follows the end of the tar",
    )
    place, size = frame_place(shard, 0, Kind.TOKENS)
    yield damaged(
        "no zeros between members", [replace_bytes(TAR, place + size, b"x")], "sha256", "verifier"
    )
    yield damaged(
        "other time in a header", [header_change(tar, first, 136, b"1")], "sha256", "verifier"
    )


def damaged_indexes(golden: Path) -> Iterator[Variant]:
    """Rule 2: block indexes."""
    store = "packed-wds"
    index = read_golden(golden, store, INDEX)
    sizes = tar_shard(golden, store).places.sizes_n4

    def damaged(name: str, changes: Sequence[Change], message: str, by: str = "reader") -> Variant:
        return variant("2", name, store, changes, message, file=INDEX, found_by=by)

    def resized(row: int, column: int, size: int) -> list[Change]:
        new = sizes.copy()
        new[row, column] = size
        return [replace_bytes(INDEX, 0, encode_index(new))]

    yield damaged("no index", [{"do": "remove", "file": INDEX}], "missing")
    yield damaged("a changed index", [replace_bytes(INDEX, 21, b"\xff")], "checksum")
    yield damaged("an index cut short", [{"do": "truncate", "file": INDEX, "bytes": 30}], "index")
    yield damaged(
        "an index of another kind",
        [replace_bytes(INDEX, 0, patched(index[:56], 5, b"\1"))],
        "kind 1",
    )
    yield damaged(
        "an index of more blocks",
        [replace_bytes(INDEX, 0, patched(index[:56], 8, b"\3"))],
        "3 blocks",
    )
    yield damaged(
        "a deflated index", [replace_bytes(INDEX, 0, patched(index[:56], 6, b"\1"))], "coding 1"
    )
    yield damaged("a column of no frame's size", resized(0, 1, 23), "size of no frame")
    yield damaged("metadata of no frame's size", resized(0, 3, 23), "size of no frame")
    yield damaged("a block without labels", resized(0, 1, 0), "lacks a column")
    yield damaged("a column beyond all limits", resized(0, 2, 2**32 - 1), "size of no frame")
    yield damaged("a column beyond the shard", resized(0, 2, 2**20), "of a file of")
    yield damaged("packed tokens of another size", resized(0, 0, 61), "bytes of tokens where")
    swapped = [{"do": "swap", "file": INDEX, "with": "val/blocks.index"}]
    yield damaged("the index of another split", swapped, "index")
    other = [*resized(1, 3, 0), RESEAL]
    yield damaged("an index and headers that disagree", other, "disagree", "verifier")


def damaged_frames(golden: Path) -> Iterator[Variant]:
    """Rule 3: frames."""
    store = "packed-wds"
    tokens, labels = (frame_of(golden, store, 0, kind) for kind in (Kind.TOKENS, Kind.LABELS))

    def damaged(name: str, kind: Kind, frame: bytes, message: str) -> Variant:
        changes = member_changes(golden, store, 0, kind, frame)
        return variant("3", name, store, changes, message, file=TAR, block=0)

    flipped = tokens[:25] + bytes([tokens[25] ^ 16]) + tokens[26:]
    yield damaged("a changed byte of tokens", Kind.TOKENS, flipped, "checksum")
    yield damaged(
        "a changed checksum", Kind.TOKENS, tokens[:-1] + bytes([tokens[-1] ^ 1]), "checksum"
    )
    header = (
        ("another magic", 0, b"ZEIT", "begins with"),
        ("a future frame", 4, b"\2", "version 2"),
        ("a frame of another kind", 5, b"\2", "kind 2"),
        ("an unknown coding", 6, b"\3", "coding 3"),
        ("deflated tokens", 6, b"\1", "coding 1"),
        ("tokens of another codec", 6, b"\2", "coding context"),
        ("a reserved byte", 7, b"\1", "flags 1"),
        ("a frame of too many samples", 8, struct.pack("<I", 2**16 + 1), "over the limits"),
        ("a frame of fewer samples", 8, struct.pack("<I", 2), "2 samples"),
        ("a frame of a larger raw size", 12, struct.pack("<Q", 37), "37"),
        ("a frame of no raw size", 12, struct.pack("<Q", 0), "claims 0"),
        ("a frame of a raw size over the limits", 12, struct.pack("<Q", 2**28 + 1), "over the"),
    )
    for name, offset, change, message in header:
        yield damaged(name, Kind.TOKENS, patched(tokens, offset, change), message)
    packed = encode_frame(Kind.TOKENS, tokens[20:44], count=2, coding=Coding.RAW)
    yield variant(
        "3",
        "a block of fewer samples",
        store,
        member_changes(golden, store, 0, Kind.TOKENS, packed),
        "bytes of tokens where",
        file=INDEX,
    )
    yield damaged("a frame cut short", Kind.LABELS, labels[:-1], "checksum")
    yield damaged("a frame of 24 bytes", Kind.LABELS, labels[:24], "checksum")
    stream = zlib.compress(bytes(12), 9)

    def deflated(payload: bytes, raw_bytes: int) -> bytes:
        return seal_frame(Kind.LABELS, payload, count=3, raw_bytes=raw_bytes, coding=Coding.DEFLATE)

    for name, payload, raw_bytes, message in (
        ("labels deflated to fewer bytes", stream, 16, "inflates to 12"),
        ("labels deflated to more bytes", stream, 8, "inflates to 9"),
        ("deflated labels that end early", stream[:-1], 12, "inflates to"),
        ("something behind deflated labels", stream + b"\0", 12, "inflates to"),
        ("a changed Adler-32", stream[:-1] + b"\xff", 12, "does not inflate"),
        ("no zlib stream", b"\xff" * 8, 12, "does not inflate"),
        ("a raw size over the deflate ratio", stream, 2**20, "cannot unfold"),
        ("labels that unfold without end", zlib.compress(bytes(400_000), 9), 12, "inflates to 13"),
    ):
        yield damaged(name, Kind.LABELS, deflated(payload, raw_bytes), message)
    two = encode_frame(Kind.LABELS, bytes(8), count=2, coding=Coding.RAW)
    yield damaged("labels of fewer samples", Kind.LABELS, two, "2 labels")
    uneven = encode_frame(Kind.LABELS, bytes(11), count=3, coding=Coding.RAW)
    yield damaged("labels of 11 bytes", Kind.LABELS, uneven, "11 bytes")


def damaged_strings(golden: Path) -> Iterator[Variant]:
    """Rule 4: keys and metadata."""
    store = "packed-wds"

    def damaged(
        name: str, kind: Kind, texts: Sequence[bytes], message: str, *, more: int = 0
    ) -> Variant:
        lengths = [len(text) for text in texts]
        lengths[-1] += more
        raw = struct.pack(f"<{len(lengths)}I", *lengths) + b"".join(texts)
        frame = encode_frame(kind, raw, count=len(texts), coding=Coding.RAW)
        changes = member_changes(golden, store, 0, kind, frame)
        return variant("4", name, store, changes, message, file=TAR, block=0)

    yield damaged("lengths beyond the keys", Kind.KEYS, [b"a", b"b", b"c"], "add up", more=1)
    yield damaged("lengths short of the keys", Kind.KEYS, [b"a", b"b", b"c"], "add up", more=-1)
    yield damaged("keys that are not UTF-8", Kind.KEYS, [b"a", b"\xff", b"c"], "UTF-8")
    yield damaged("keys of fewer samples", Kind.KEYS, [b"a", b"b"], "2 keys")
    yield damaged("metadata of more samples", Kind.METADATA, [b"{}"] * 4, "4 metadata")
    yield damaged(
        "metadata that are no object", Kind.METADATA, [b"{}", b"[]", b"{}"], "JSON object"
    )
    yield damaged("metadata that are no JSON", Kind.METADATA, [b"{}", b"{", b"{}"], "not JSON")
    yield damaged("metadata with NaN", Kind.METADATA, [b"{}", b'{"a":NaN}', b"{}"], "not JSON")
    raw = struct.pack("<3I", 1, 1, 1) + b"aab"
    frame = encode_frame(Kind.KEYS, raw, count=3, coding=Coding.RAW)
    yield variant(
        "4",
        "a key twice",
        store,
        [*member_changes(golden, store, 0, Kind.KEYS, frame), RESEAL],
        "'a' of sample 1 is that of sample 0",
        file=TAR,
        block=0,
        found_by="verifier",
    )


def damaged_tokens(golden: Path) -> Iterator[Variant]:
    """Rule 5: tokens and labels."""

    def damaged(
        name: str, store: str, kind: Kind, frame: bytes, message: str, block: int = 0
    ) -> Variant:
        changes = member_changes(golden, store, block, kind, frame)
        return variant("5", name, store, changes, message, file=TAR, block=block)

    packed, context = "packed-wds", "context-wds"
    ids = encode_frame(Kind.TOKENS, b"\xff" * 36, count=3, coding=Coding.RAW)
    yield damaged("packed ids that are not below K", packed, Kind.TOKENS, ids, "token id 63")
    for name, value in (("a label below -1", -2), ("a label of no class", 3)):
        raw = struct.pack("<3i", 0, value, 1)
        frame = encode_frame(Kind.LABELS, raw, count=3, coding=Coding.RAW)
        change = member_changes(golden, packed, 0, Kind.LABELS, frame)
        yield variant("5", name, packed, change, "labels from", file=TAR, block=0)
    frame = frame_of(golden, context, 0, Kind.TOKENS)
    sizes = struct.unpack_from("<3H", frame, 20)

    def streams(name: str, offset: int, change: bytes, message: str) -> Variant:
        return damaged(name, context, Kind.TOKENS, patched(frame, offset, change), message)

    last = bytes([frame[-6] ^ 1])
    yield streams("a changed word of a stream", len(frame) - 6, last, "stream")
    moved = struct.pack("<2H", sizes[0] + 1, sizes[1] - 1)
    yield streams("a word given to another stream", 20, moved, "not whole")
    more = struct.pack("<H", sizes[0] + 1)
    yield streams("streams longer than their frame", 20, more, "do not add up")
    one = struct.pack("<2H", 1, sizes[0] + sizes[1] - 1)
    yield streams("a stream of one word", 20, one, "do not add up")
    yield streams("streams of another raw size", 12, struct.pack("<Q", 62), "62 bytes")
    odd = with_crc(frame[:-4] + bytes(5))
    yield damaged("half a word", context, Kind.TOKENS, odd, "cannot hold the streams")
    lost = _stream_to_an_unused_leaf(open_golden(golden, context)["train"])
    yield damaged("a stream to an unused leaf", context, Kind.TOKENS, lost, "not below 40", block=1)


def _stream_to_an_unused_leaf(split: Split) -> bytes:
    """Return a frame of one sample with a last token on a path without a code."""
    codec = split.store.codec
    assert isinstance(codec, ContextCodec), "a store of the codec context"
    tables = _tables_of(split.store)
    last = 7
    paths = tables.paths.copy()
    paths[last] = np.setdiff1d(np.arange(64), paths)[0]
    tokens_1HW = np.zeros((1, *split.grid), dtype=split.layout.dtype)
    tokens_1HW[0, -1, -1] = last
    frame = ContextCodec(codec.layout, replace(tables, paths=paths)).encode(tokens_1HW)
    assert frame[6] == Coding.CONTEXT, "the sample is not smaller coded"
    return frame


def _tables_of(store: Store) -> ContextTables:
    tables = load(store.read_listed(CODEBOOK))["codec.tables"].tobytes()
    return ContextTables.from_bytes(tables, store.card.layout.num_codes)
