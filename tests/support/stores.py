"""Small stores for tests, written by the library's writer but sealed by the specification."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from seit.shards import (
    CODEBOOK_NAME,
    SKIPPED_NAME,
    Block,
    Card,
    Codec,
    FileRecord,
    PackedCodec,
    ShardRecord,
    ShardWriter,
    TokenizerInfo,
    TokenLayout,
    write_index,
)
from seit.shards.context import ContextCodec
from seit.shards.context.fit import fit_tables
from seit.shards.zarr import ZarrSplit, write_zarr_split


@dataclass
class Columns:
    """Columns written into a split: ids (N, H, W), labels, keys, one mapping a sample."""

    tokens: np.ndarray
    labels: np.ndarray
    keys: list[str]
    metadata: list[dict[str, Any]]


def build_store(
    path: Path,
    *,
    grid: tuple[int, int] = (4, 4),
    num_codes: int = 16,
    dim: int = 4,
    shards: Mapping[str, Sequence[int]] | None = None,
    block_samples: int = 1024,
    classes: tuple[str, ...] = ("ant", "bee", "cat"),
    with_metadata: bool = False,
    indexed: bool = True,
    seed: int = 0,
    codec: str = "packed",
    container: str = "wds",
    key_of: Callable[[str, int], str] = "{}/bilder/ü{}.jpg".format,
) -> dict[str, Columns]:
    """Write a store of random samples, ``shards`` giving the samples of each shard of a split.

    With the codec ``context`` tokens are smooth, so that they are smaller coded than packed. The
    container ``zarr`` takes no other shards than a Zarr array has.
    """
    rng = np.random.default_rng(seed)
    layout = TokenLayout(grid=grid, num_codes=num_codes)
    codebook = rng.normal(size=(num_codes, dim)).astype(np.float32)
    coder = PackedCodec(layout) if codec == "packed" else fit_codec(layout)
    path.mkdir(parents=True, exist_ok=True)
    written: dict[str, Columns] = {}
    records: dict[str, Sequence[ShardRecord]] = {}
    others: list[FileRecord] = []
    for split, counts in (shards or {"train": (8,)}).items():
        total = sum(counts)
        columns = Columns(
            tokens=(random_tokens if codec == "packed" else smooth_tokens)(rng, total, layout),
            labels=rng.integers(-1, len(classes), size=total),
            keys=[key_of(split, number) for number in range(total)],
            metadata=[{"n": n, "s": "é" * (n % 3)} if with_metadata else {} for n in range(total)],
        )
        written[split] = columns
        if container == "zarr":
            group = write_group(
                path,
                columns,
                split=split,
                counts=counts,
                codec=coder,
                block_samples=block_samples,
                classes=classes,
                with_metadata=with_metadata,
            )
            records[split] = group.shards
            others += group.files
            continue
        starts = np.cumsum([0, *counts]).tolist()
        records[split] = [
            write_shard(
                path,
                columns,
                slice(start, stop),
                split=split,
                index=index,
                codec=coder,
                block_samples=block_samples,
                with_metadata=with_metadata,
            )
            for index, (start, stop) in enumerate(pairwise(starts))
        ]
        if indexed and counts:
            others.append(write_index(path, split, records[split]))
    tensors = {"codebook": codebook}
    if coder.tables is not None:
        tensors["codec.tables"] = np.frombuffer(coder.tables, dtype=np.uint8)
    files = {
        CODEBOOK_NAME: save(tensors),
        SKIPPED_NAME: b'{"key": "broken.jpg", "split": "train", "reason": "truncated"}\n',
    }
    for name, data in files.items():
        (path / name).write_bytes(data)
    card = Card(
        tokenizer=TokenizerInfo(
            name="random",
            fingerprint="0" * 64,
            modality="image",
            preprocessing={"size": 8 * grid[0]},
            grid=grid,
            codebook_size=num_codes,
            codebook_dim=dim,
            flip_equivariant=False,
        ),
        codec=codec,
        container=container,
        block_samples=block_samples,
        classes=classes,
        splits={split: tuple(entries) for split, entries in records.items()},
        files=(*(record_of(path, name) for name in files), *others),
        skipped=1,
        source_bytes=12345,
        quality={"psnr_db": 24.0125, "perplexity": 1e-05},
        job={"seed": seed, "größe": None},
    )
    card.write(path)
    return written


def random_tokens(rng: np.random.Generator, count: int, layout: TokenLayout) -> np.ndarray:
    """Ids (N, H, W) without any order."""
    return rng.integers(layout.num_codes, size=(count, *layout.grid)).astype(layout.dtype)


def smooth_tokens(rng: np.random.Generator, count: int, layout: TokenLayout) -> np.ndarray:
    """Ids (N, H, W) that seldom differ from the one before by more than nothing."""
    steps = rng.random((count, layout.length)) < 0.03
    steps[:, 0] = False
    first = rng.integers(layout.num_codes, size=(count, 1))
    ids = (first + np.cumsum(steps, axis=1)) % layout.num_codes
    return ids.reshape(count, *layout.grid).astype(layout.dtype)


@lru_cache
def fit_codec(layout: TokenLayout) -> ContextCodec:
    """The codec ``context``, fitted to smooth tokens."""
    tokens = smooth_tokens(np.random.default_rng(0), 200, layout)
    codebook = np.arange(layout.num_codes, dtype=np.float32)[:, None]
    return ContextCodec(layout, fit_tables(tokens, codebook, total_samples=200))


def write_shard(
    path: Path,
    columns: Columns,
    rows: slice,
    *,
    split: str,
    index: int,
    codec: Codec,
    block_samples: int,
    with_metadata: bool = False,
) -> ShardRecord:
    """Write some rows as a shard."""
    with ShardWriter(path, split=split, index=index, codec=codec) as writer:
        for block in blocks_of(columns, rows, block_samples, with_metadata=with_metadata):
            writer.write(block)
    return writer.record


def write_group(
    path: Path,
    columns: Columns,
    *,
    split: str,
    counts: Sequence[int],
    codec: Codec,
    block_samples: int,
    classes: Sequence[str],
    with_metadata: bool = False,
) -> ZarrSplit:
    """Write a split as a Zarr group whose shards hold ``counts`` samples."""
    total = sum(counts)
    full_blocks = -(-max([1, *counts]) // block_samples)
    written = write_zarr_split(
        path / f"{split}.zarr",
        blocks_of(columns, slice(0, total), block_samples, with_metadata=with_metadata),
        codec=codec,
        num_samples=total,
        classes=classes,
        block_samples=block_samples,
        shard_samples=full_blocks * block_samples,
    )
    assert [shard.samples for shard in written.shards] == [count for count in counts if count]
    return written


def blocks_of(
    columns: Columns, rows: slice, block_samples: int, *, with_metadata: bool
) -> Iterator[Block]:
    """Some rows as blocks."""
    for start in range(rows.start, rows.stop, block_samples):
        chosen = slice(start, min(start + block_samples, rows.stop))
        yield Block(
            tokens=columns.tokens[chosen],
            labels=columns.labels[chosen].astype(np.int32),
            keys=tuple(columns.keys[chosen]),
            metadata=tuple(columns.metadata[chosen]) if with_metadata else None,
        )


def record_of(path: Path, name: str) -> FileRecord:
    """The card's record of a file of the store."""
    data = (path / name).read_bytes()
    return FileRecord(name, len(data), hashlib.sha256(data).hexdigest())


def sealed(body: Mapping[str, Any]) -> str:
    """The text of a card with the entries ``body``, sealed as the specification says."""
    text = json.dumps(body, indent=2, ensure_ascii=False) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    return text[:-3] + f',\n  "sha256": "{digest}"\n}}\n'


def edit_card(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the entries of a store's card and seal it again."""
    body = json.loads((path / "store.json").read_text())
    del body["sha256"]
    change(body)
    (path / "store.json").write_text(sealed(body))


def replace_shard(path: Path, name: str, data: bytes) -> None:
    """Put other bytes in place of a shard, and have the card agree with them."""

    def change(body: dict[str, Any]) -> None:
        for split in body["splits"].values():
            for shard in split["shards"]:
                if shard["file"] == name:
                    shard["bytes"], shard["sha256"] = len(data), hashlib.sha256(data).hexdigest()

    (path / name).write_bytes(data)
    edit_card(path, change)
