"""Damage codebooks, tables and Zarr groups: rule 6 and section 7 of the format."""

import gzip
import json
import lzma
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import google_crc32c
import numpy as np
from golden.changes import (
    CARD,
    CODEBOOK,
    RESEAL,
    Change,
    Variant,
    card_entry,
    open_golden,
    read_golden,
    replace_bytes,
    variant,
    write_file,
)
from safetensors.numpy import load, save

from seit.shards.frames import Coding, Kind, encode_frame
from seit.shards.zarr.chunks import encode_index as encode_chunk_index


def damaged_codebooks(golden: Path) -> Iterator[Variant]:
    """Rule 6: the codebook and the tables of the codec."""
    store, context = "packed-wds", "context-wds"
    size = len(read_golden(golden, store, CODEBOOK))

    def damaged(name: str, changes: Sequence[Change], message: str, of: str = store) -> Variant:
        return variant("6", name, of, changes, message, file=CODEBOOK)

    def saved(**tensors: np.ndarray) -> list[Change]:
        return [write_file(CODEBOOK, save(tensors)), RESEAL]

    yield damaged("no codebook", [{"do": "remove", "file": CODEBOOK}], "No such file")
    yield damaged("a changed codebook", [replace_bytes(CODEBOOK, size - 1, b"\1")], "checksum")
    yield damaged(
        "a codebook cut short", [{"do": "truncate", "file": CODEBOOK, "bytes": 8}], "checksum"
    )
    codebook = open_golden(golden, store).codebook
    yield damaged("a codebook of another shape", saved(codebook=codebook[1:]), "(39, 1)")
    half = saved(codebook=codebook.astype(np.float16))
    yield damaged("a codebook of another dtype", half, "float16")
    yield damaged("no tensor codebook", saved(codes=codebook), "codebook")
    yield damaged(
        "a codebook that is no safetensors", [write_file(CODEBOOK, b"\xff" * 64), RESEAL], CODEBOOK
    )
    raw = lzma.decompress(load(read_golden(golden, context, CODEBOOK))["codec.tables"].tobytes())
    paths, squash = 8, 8 + 2 * 40

    def tables(name: str, unfolded: bytes, message: str) -> Variant:
        folded = np.frombuffer(_xz(unfolded), dtype=np.uint8)
        changes = saved(**{"codebook": codebook, "codec.tables": folded})
        return damaged(name, changes, message, context)

    yield damaged("no tables", saved(codebook=codebook), "codec.tables", context)
    yield tables("tables of a future version", b"\2" + raw[1:], "begin with")
    yield tables("tables of four neighbours", raw[:1] + b"\4" + raw[2:], "begin with")
    yield tables("tables of 41 codes", raw[:4] + b"\x29" + raw[5:], "begin with")
    yield tables("tables cut short", raw[:-1], "unfold to")
    yield tables("tables that go on", raw + b"\0", "unfold to")
    twice = raw[:paths] + raw[paths + 2 : paths + 4] + raw[paths + 2 :]
    yield tables("two codes at one leaf", twice, "leaf")
    outside = raw[:paths] + struct.pack("<H", 64) + raw[paths + 2 :]
    yield tables("a leaf outside the tree", outside, "leaf")
    never = raw[:squash] + b"\0\0" + raw[squash + 2 :]
    yield tables("a probability of nothing", never, "probability")
    always = raw[:squash] + struct.pack("<H", 2**15) + raw[squash + 2 :]
    yield tables("a probability of one", always, "probability")
    not_xz = np.frombuffer(zlib.compress(raw), dtype=np.uint8)
    changes = saved(**{"codebook": codebook, "codec.tables": not_xz})
    yield damaged("tables that are no xz", changes, "decompress", context)


def _xz(raw: bytes) -> bytes:
    return lzma.compress(raw, check=lzma.CHECK_CRC32)


def damaged_groups(golden: Path) -> Iterator[Variant]:
    """Yield damage of section 7: chunks, their indexes, and `zarr.json`."""
    store = "packed-zarr"
    group = "train.zarr"
    tokens, labels, keys, metadata = (
        f"{group}/{array}/c/0{tail}"
        for array, tail in (("tokens", "/0/0"), ("labels", ""), ("keys", ""), ("metadata", ""))
    )

    def damaged(
        name: str,
        file: str,
        changes: Sequence[Change],
        message: str,
        block: int | None = None,
        by: str = "reader",
    ) -> Variant:
        return variant("zarr", name, store, changes, message, file=file, block=block, found_by=by)

    def chunk(file: str, data: bytes) -> list[Change]:
        """Replace the first chunk of a file, with a correct index and card."""
        second = _chunks(read_golden(golden, store, file))[1]
        index = encode_chunk_index([(0, len(data)), (len(data), len(second))])
        return [write_file(file, data + second + index), RESEAL]

    whole = read_golden(golden, store, labels)
    yield damaged("no shard of labels", labels, [{"do": "remove", "file": labels}], "No such file")
    flipped = bytes([whole[-1] ^ 1])
    yield damaged(
        "a changed chunk index", labels, [replace_bytes(labels, len(whole) - 1, flipped)], "index"
    )
    for name, places in (
        ("chunks that overlap", [(0, 16), (8, 16)]),
        ("a gap between chunks", [(0, 12), (16, 16)]),
        ("a chunk beyond the index", [(0, 16), (16, 17)]),
        ("chunks that do not fill the file", [(0, 16), None]),
        ("chunks out of order", [(16, 16), (0, 16)]),
    ):
        index = encode_chunk_index(places)
        change = replace_bytes(labels, len(whole) - len(index), index)
        yield damaged(name, labels, [change], labels)
    short = f"{group}/labels/c/1"
    absent = _chunks(read_golden(golden, store, short))[0]
    index = encode_chunk_index([(0, 16), (16, 16)])
    behind = [write_file(short, absent + absent + index), RESEAL]
    yield damaged("a chunk behind the last block", short, behind, "more than the 1 blocks")
    yield damaged(
        "a changed chunk of labels", labels, [replace_bytes(labels, 0, b"\x55")], "checksum", 0
    )
    raw = struct.pack("<3i", 0, 3, 1)
    yield damaged(
        "a label of no class in a chunk", labels, chunk(labels, _sealed(raw)), "labels from", 0
    )
    yield damaged(
        "a chunk of two labels", labels, chunk(labels, _sealed(raw[:8])), "do not take", 0
    )
    frame = _chunks(read_golden(golden, store, tokens))[0]
    changed = replace_bytes(tokens, 30, bytes([frame[30] ^ 1]))
    yield damaged("a changed chunk of tokens", tokens, [changed], "checksum", 0)
    ids = encode_frame(Kind.TOKENS, b"\xff" * 36, count=3, coding=Coding.RAW)
    yield damaged(
        "ids that are not below K in a chunk", tokens, chunk(tokens, ids), "token id 63", 0
    )
    four = encode_frame(Kind.TOKENS, bytes(48), count=4, coding=Coding.RAW)
    yield damaged("a chunk of too many tokens", tokens, chunk(tokens, four), "4 samples", 0)

    def texts(*strings: bytes, count: int = 3) -> bytes:
        parts = [struct.pack("<I", count)]
        parts += [struct.pack("<I", len(text)) + text for text in strings]
        return b"".join(parts)

    three = texts(b"a", b"b", b"c")
    for name, file, raw, message in (
        ("a chunk of two keys", keys, texts(b"a", b"b", count=2), "3 strings"),
        ("keys that end too early", keys, texts(b"a", b"b"), "too early"),
        ("something behind the keys", keys, three + b"d", "add up"),
        ("keys that are not UTF-8 in a chunk", keys, texts(b"a", b"\xff", b"c"), "UTF-8"),
        (
            "metadata that are no object in a chunk",
            metadata,
            texts(b"{}", b"1", b"{}"),
            "JSON object",
        ),
        ("metadata that are no JSON in a chunk", metadata, texts(b"{}", b"{", b"{}"), "not JSON"),
    ):
        zipped = _sealed(_gzipped(raw))
        yield damaged(name, file, chunk(file, zipped), message, 0)
    zipped = _gzipped(three)
    for name, data, message in (
        ("gzipped keys with a changed checksum", zipped[:-5] + b"\xff" + zipped[-4:], "unfold"),
        ("gzipped keys of another size", zipped[:-4] + struct.pack("<I", 20), "unfold"),
        ("gzipped keys over the limits", zipped[:-4] + struct.pack("<I", 2**28 + 1), "unfold"),
        ("two gzip members", zipped + zipped, "unfold"),
    ):
        yield damaged(name, keys, chunk(keys, _sealed(data)), message, 0)
    renamed = [card_entry("splits", "train", "shards", 0, "file", value=f"{group}/tokens/c/7/0/0")]
    yield damaged("a shard of another number", CARD, renamed, "cut evenly")
    uneven = [
        card_entry("splits", "train", "shards", 0, "samples", value=5),
        card_entry("splits", "train", "shards", 1, "samples", value=3),
    ]
    yield damaged("shards that are cut unevenly", CARD, uneven, "cut evenly")
    listed = [entry["file"] for entry in json.loads(read_golden(golden, store, CARD))["files"]]
    at = listed.index(keys)
    unnamed = [{"do": "card", "at": ["files", at], "remove": True}]
    yield damaged("a shard of keys that the card does not name", CARD, unnamed, "names no")
    document = f"{group}/tokens/zarr.json"
    text = read_golden(golden, store, document)
    for name, new, message in (
        ("a zarr.json of another shape", text.replace(b"    8,", b"    9,", 1), "'shape'"),
        ("a zarr.json with another entry", text.replace(b"{", b'{"storage": 1,', 1), "'storage'"),
        ("a zarr.json that is no JSON", b"{", "JSON"),
    ):
        assert new != text, "nothing was changed"
        yield damaged(name, document, [write_file(document, new), RESEAL], message, by="verifier")
    other = read_golden(golden, "context-zarr", document)
    yield damaged(
        "a zarr.json of another codec",
        document,
        [write_file(document, other), RESEAL],
        "'codecs'",
        by="verifier",
    )


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    """Return the chunks of a shard of two; the second may be missing."""
    index = data[-36:]
    places = [struct.unpack_from("<QQ", index, 16 * number) for number in (0, 1)]
    first, second = (data[at : at + size] if at < len(data) else b"" for at, size in places)
    return first, second


def _sealed(payload: bytes) -> bytes:
    return payload + struct.pack("<I", google_crc32c.value(payload))


def _gzipped(raw: bytes) -> bytes:
    return gzip.compress(raw, mtime=0)
