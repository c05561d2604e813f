"""List the damaged variants of the golden stores: changes, and the error of a reader.

Variants are lists of changes, so no damaged store needs to be kept; `shards/golden/README.md`
specifies them.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from golden.blocks import (
    damaged_frames,
    damaged_indexes,
    damaged_strings,
    damaged_tars,
    damaged_tokens,
)
from golden.changes import (
    CARD,
    Change,
    Variant,
    card_entry,
    read_golden,
    replace_bytes,
    variant,
    write_file,
)
from golden.groups import damaged_codebooks, damaged_groups


def list_damage(golden: Path) -> list[Variant]:
    """Return all variants of the stores in the folder ``golden``."""
    groups = (
        damaged_cards,
        damaged_tars,
        damaged_indexes,
        damaged_frames,
        damaged_strings,
        damaged_tokens,
        damaged_codebooks,
        damaged_groups,
    )
    variants = [variant for group in groups for variant in group(golden)] + list(damaged_files())
    names = [variant["name"] for variant in variants]
    assert len(set(names)) == len(names), "two variants have the same name"
    return variants


def damaged_cards(golden: Path) -> Iterator[Variant]:
    """Yield unreadable stores, and damage of rule 1."""
    store = "packed-wds"
    text = read_golden(golden, store, CARD)

    def refused(name: str, changes: Sequence[Change], message: str) -> Variant:
        return variant("refused", name, store, changes, message, file=CARD, kind="refused")

    yield refused("no card", [{"do": "remove", "file": CARD}], "store.json")
    yield refused("another format", [card_entry("format", value="other-store")], "other-store")
    yield refused("a future version", [card_entry("version", value=2)], "version 2")
    later = [card_entry("version", value=2), {"do": "card", "at": ["tokenizer"], "remove": True}]
    yield refused("a future version of other entries", later, "version 2")
    other = {"name": "huffman", "depth": 3}
    yield refused(
        "an unknown codec of other entries", [card_entry("codec", value=other)], "huffman"
    )
    yield refused("an unknown codec", [card_entry("codec", "name", value="huffman")], "huffman")
    yield refused("an unknown container", [card_entry("container", value="parquet")], "parquet")

    def damaged(name: str, changes: Sequence[Change], message: str = CARD) -> Variant:
        return variant("1", name, store, changes, message, file=CARD)

    yield damaged("a card that is not UTF-8", [replace_bytes(CARD, 20, b"\xff")])
    yield damaged("a card that is no JSON", [replace_bytes(CARD, 0, b"[")])
    yield damaged("a card cut short", [{"do": "truncate", "file": CARD, "bytes": len(text) // 2}])
    yield damaged("an empty card", [{"do": "truncate", "file": CARD, "bytes": 0}])
    yield damaged("a card that goes on", [{"do": "append", "file": CARD, "hex": "0a"}], "checksum")
    place = text.index(b"example")
    yield damaged("a changed card", [replace_bytes(CARD, place, b"E")], "checksum")
    yield damaged("a changed seal", [replace_bytes(CARD, len(text) - 5, b"z")], "checksum")
    for entry in ("tokenizer", "codec", "block_samples", "classes", "splits", "files", "job"):
        yield damaged(f"a card without {entry}", [{"do": "card", "at": [entry], "remove": True}])
    yield damaged("an entry too many", [card_entry("colour", value="red")])
    first_file, first_shard = ("files", 0, "file"), ("splits", "train", "shards", 0)
    for name, at, value in (
        ("one code", ("tokenizer", "codebook_size"), 1),
        ("too many codes", ("tokenizer", "codebook_size"), 2**31 + 1),
        ("no columns", ("tokenizer", "grid"), [3, 0]),
        ("too many rows", ("tokenizer", "grid"), [2**14 + 1, 5]),
        ("a grid of three sides", ("tokenizer", "grid"), [3, 5, 1]),
        ("no dimensions", ("tokenizer", "codebook_dim"), 0),
        ("blocks of no samples", ("block_samples",), 0),
        ("blocks of too many samples", ("block_samples",), 2**16 + 1),
        ("blocks of half a sample", ("block_samples",), 2.5),
        ("blocks of true samples", ("block_samples",), True),
        ("classes that are a string", ("classes",), "ant"),
        ("a class that is a number", ("classes", 0), 1),
        ("a name that is a number", ("tokenizer", "name"), 1),
        ("other bits than the codes take", ("codec", "bits"), 7),
        ("a sum of samples that is none", ("splits", "train", "samples"), 7),
        ("more samples than fit", (*first_shard, "samples"), 10_000),
        ("more blocks than a shard holds", (*first_shard, "samples"), 2**18),
        ("a shard of less than nothing", (*first_shard, "bytes"), -1),
        ("a file of too many bytes", ("files", 0, "bytes"), 2**50 + 1),
        ("an absolute path", first_file, "/etc/passwd"),
        ("a path that leads out", first_file, "../codebook.safetensors"),
        ("a path that leads out of a shard", (*first_shard, "file"), "train/../../x.tar"),
        ("a path with an empty part", first_file, "a//b"),
        ("a path with a dot", first_file, "./codebook.safetensors"),
        ("an empty path", first_file, ""),
        ("a path with a NUL", first_file, "a\0b"),
        ("a file that is named twice", first_file, "skipped.jsonl"),
        ("the card among its files", first_file, CARD),
        ("a hidden path", first_file, ".tokenize/job.json"),
        ("a hidden part of a path", first_file, "a/.b"),
        ("a path with a backslash", first_file, "..\\codebook.safetensors"),
        ("a path with a drive", first_file, "C:codebook.safetensors"),
        ("a path with a line feed", first_file, "a\nb"),
        ("a path with an escape", first_file, "a\x1b[31mb"),
        ("a path with a long part", first_file, "ü" * 124),
        ("a long path", first_file, "/".join(["a" * 99] * 11)),
        ("a path of a temporary file", first_file, "train/00000.tar.partial"),
        ("a path that is a folder", first_file, "train"),
        ("a path below a file", first_file, "skipped.jsonl/a"),
        ("more samples than their blocks fit into", (*first_shard, "bytes"), 3072),
    ):
        yield damaged(name, [card_entry(*at, value=value)])
    train = json.loads(text)["splits"]["train"]
    for name, split in (
        ("an absolute split", "/train"),
        ("a split that leads out", "../train"),
        ("a split that is the folder above", ".."),
        ("a split that is the store itself", "."),
        ("a split of two parts", "a/train"),
        ("a hidden split", ".train"),
        ("a split of no name", ""),
        ("a split with a backslash", "a\\train"),
        ("a split on a drive", "C:train"),
        ("a split with a NUL", "tr\0ain"),
        ("a split with a line feed", "tr\nain"),
        ("a split with an escape", "tr\x1b[31main"),
        ("a split with a control character", "tr\x9bain"),
        ("a split of a long name", "ü" * 121),
        ("a split of the name of a file", "skipped.jsonl"),
        ("a split of the name of the card", CARD),
    ):
        yield damaged(name, [card_entry("splits", value={split: train})])
    yield variant(
        "1",
        "more codes than context serves",
        "context-wds",
        [
            card_entry("tokenizer", "codebook_size", value=4097),
            card_entry("codec", "bits", value=13),
        ],
        CARD,
        file=CARD,
    )


def damaged_files() -> Iterator[Variant]:
    """Yield damage that only a verifier finds, since only the card reveals it."""
    store = "packed-wds"
    last = "train/00002.tar"

    def damaged(name: str, file: str, changes: Sequence[Change], message: str) -> Variant:
        return variant("verifier", name, store, changes, message, file=file, found_by="verifier")

    yield damaged(
        "a file that the card does not name", "notes.txt", [write_file("notes.txt", b"x")], "card"
    )
    more = {"do": "append", "file": last, "hex": "00" * 512}
    yield damaged("a file that goes on", last, [more], "bytes where the card says")
    lost = {"do": "append", "file": "skipped.jsonl", "hex": "7b7d0a"}
    yield damaged("a changed list of skipped inputs", "skipped.jsonl", [lost], "bytes where")
    yield damaged(
        "no list of skipped inputs",
        "skipped.jsonl",
        [{"do": "remove", "file": "skipped.jsonl"}],
        "missing",
    )
