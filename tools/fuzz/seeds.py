"""Write the fuzzing seeds: the golden stores, in the form of each target."""

import itertools
import json
import lzma
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from fuzz import programs, records
from fuzz.stores import store_seeds
from golden.make import GOLDEN, STORES

import seit
from seit.shards.frames import Kind
from seit.shards.shard import Shard
from seit.stores.official import encode_escaped
from seit.stores.official.codebook import torch_bytes


def write_seeds(target: str, folder: Path) -> None:
    """Write the seeds of a target, one per file."""
    for number, data in enumerate(_SEEDS[target]()):
        (folder / f"seed-{number:03d}").write_bytes(data)


def write_dictionary(path: Path) -> None:
    """Write the words of the cards and documents as a dictionary of libFuzzer."""
    words = {"|||", "SEIT", "ustar", "NaN", "1e999", "-1", '""', "../", "\\u0000", "\\ud800"}
    for file in GOLDEN.rglob("*.json"):
        if file.parent != GOLDEN and file.name != "expected.json":
            words |= {word for word in _strings(json.loads(file.read_text())) if len(word) < 40}
    lines = ["".join(f"\\x{byte:02x}" for byte in word.encode()) for word in sorted(words) if word]
    path.write_text("".join(f'"{line}"\n' for line in lines))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield f'"{key}"'
            yield from _strings(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _strings(entry)
    elif isinstance(value, str):
        yield value


def _frames(name: str) -> Iterator[tuple[Kind, bytes]]:
    """Yield all stored columns of all blocks of a golden store."""
    for split in seit.open(GOLDEN / name / "store").values():
        for (shard, block), kind in itertools.product(split.blocks(), Kind):
            data = _stored(shard, block, kind)
            if data is not None:
                yield kind, data


def _stored(shard: Shard, block: int, kind: Kind) -> bytes | None:
    place = shard._find(block, kind) if kind in shard.files else None
    return None if place is None else shard.folder.read(shard.files[kind].file, *place)


def _file(name: str, file: str) -> bytes:
    return (GOLDEN / name / "store" / file).read_bytes()


def _frame_seeds() -> Iterator[bytes]:
    for kind, data in _frames("packed-wds"):
        for effort in (0, 1):
            yield bytes([kind - 1, effort]) + data
        yield bytes([kind - 1, 2, data[8], 0, 0, data[6]]) + data[20:-4]
    yield bytes([Kind.INDEX - 1, 1]) + _file("packed-wds", "val/blocks.index")
    yield bytes([Kind.KEYS - 1, 3, 2]) + b"\2\0\0\0\1\0\0\0abc"
    yield bytes([Kind.METADATA - 1, 3, 2]) + b'\2\0\0\0\7\0\0\0{}{"a":1}'


def _packed_seeds() -> Iterator[bytes]:
    for number, name in enumerate(["packed-wds", "two-codes", None, "many-codes"]):
        for kind, data in _frames(name) if name else ():
            if kind is Kind.TOKENS:
                yield bytes([number, 0]) + data
                yield bytes([number, 1]) + data[20:-4]


def _context_seeds() -> Iterator[bytes]:
    for kind, data in _frames("context-wds"):
        if kind is Kind.TOKENS:
            yield bytes([0, 0]) + data
            yield bytes([0, 1 + 3 * 2]) + data[26:-4]
    split = seit.open(GOLDEN / "context-wds" / "store")["train"]
    for effort in (2, 2 + 3 * 7):
        yield bytes([0, effort]) + split.tokens[:3].tobytes()
        for number in (1, 2, 3):
            yield bytes([number, effort]) + bytes(range(64))


def _index_seeds() -> Iterator[bytes]:
    data = _file("packed-wds", "train/blocks.index")
    for number in range(3):
        yield bytes([number, 0]) + data
    yield bytes([0, 1]) + data[20:52]
    yield bytes([2, 1]) + data[-20:-4]


def _card_seeds() -> Iterator[bytes]:
    for golden in STORES:
        data = _file(golden.name, "store.json")
        yield bytes([0, 0]) + data
        body = json.loads(data)
        del body["sha256"]
        text = json.dumps(body, indent=2, ensure_ascii=False) + "\n"
        yield bytes([0, 1]) + text.encode()
        yield bytes([0, 2]) + json.dumps(body, ensure_ascii=False).encode()


def _tables_seeds() -> Iterator[bytes]:
    store = seit.open(GOLDEN / "context-wds" / "store")
    tables = store.codec.tables
    assert tables is not None, "the codec context has tables"
    yield bytes([3, 0]) + tables
    for effort in (1, 2):
        yield bytes([3, effort]) + lzma.decompress(tables)[8:]
        for number in range(3):
            yield bytes([number, effort]) + bytes(range(1, 200))


def _tar_seeds() -> Iterator[bytes]:
    for name in ("packed-wds", "two-codes"):
        for split in seit.open(GOLDEN / name / "store").values():
            for record in split.store.card.splits[split.name]:
                data = _file(name, record.file)
                data = data.rstrip(b"\0")
                data += bytes(-len(data) % 512 + 1024)
                for effort in range(3):
                    yield bytes([max(record.samples, 1) - 1, effort]) + data


def _zarr_seeds() -> Iterator[bytes]:
    for number, name in enumerate(["packed-zarr", "context-zarr"]):
        group = GOLDEN / name / "store" / "train.zarr"
        for kind in [Kind.TOKENS, Kind.LABELS, Kind.KEYS, Kind.METADATA]:
            case = number + 2 * (kind - 1)
            folder = group / kind.name.lower()
            tail = "c/0/0/0" if kind is Kind.TOKENS else "c/0"
            yield bytes([case, 0]) + (folder / tail).read_bytes()
            yield bytes([case, 4]) + (folder / "zarr.json").read_bytes()
            yield bytes([case, 3]) + b"\3\0\0\0" + b"\2\0\0\0{}" * 3
        for kind, data in _frames(name):
            case = number + 2 * (kind - 1)
            yield bytes([case, 1]) + data
            yield bytes([case, 2]) + data[:-4]


def _official_seeds() -> Iterator[bytes]:
    ids = np.arange(21, dtype=np.uint16).reshape(3, 7) * 23 % 500
    coded, offsets = encode_escaped(ids)
    data = coded.tobytes()
    header = b"\x93NUMPY\1\0\x76\0"
    described = "{'descr': '<i8', 'fortran_order': False, 'shape': (4,), }".ljust(117) + "\n"
    index = header + described.encode() + offsets.tobytes()
    yield bytes([10, 6]) + data
    yield bytes([7, 6, 3]) + offsets.tobytes() + data
    yield bytes([5, 6]) + index + b"|||" + data
    yield bytes([1, 200]) + b"3\n-1\n0\n"
    yield bytes([0, 0]) + torch_bytes(np.ones((3, 2), dtype=np.float32))
    yield bytes([0, 1]) + header + described.replace("<i8", "<f4").encode() + bytes(16)
    yield bytes([0, 2]) + _file("packed-wds", "codebook.safetensors")


_SEEDS = {
    "frame": _frame_seeds,
    "packed": _packed_seeds,
    "context": _context_seeds,
    "index": _index_seeds,
    "card": _card_seeds,
    "tables": _tables_seeds,
    "tar": _tar_seeds,
    "zarr": _zarr_seeds,
    "official": _official_seeds,
    "store": store_seeds,
    **records.SEEDS,
    **programs.SEEDS,
}
