"""Small stores for tests, written by the library's writer but sealed by the specification."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from seit.shards import (
    CODEBOOK_NAME,
    SKIPPED_NAME,
    Block,
    Card,
    FileRecord,
    PackedCodec,
    ShardRecord,
    ShardWriter,
    TokenizerInfo,
    TokenLayout,
    write_index,
)


@dataclass
class Columns:
    """What was written into a split: ids (N, H, W), labels, keys, one mapping a sample."""

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
) -> dict[str, Columns]:
    """Write a store of random samples, ``shards`` giving the samples of each shard of a split."""
    rng = np.random.default_rng(seed)
    layout = TokenLayout(grid=grid, num_codes=num_codes)
    path.mkdir(parents=True, exist_ok=True)
    written, records = {}, {}
    for split, counts in (shards or {"train": (8,)}).items():
        total = sum(counts)
        columns = Columns(
            tokens=rng.integers(num_codes, size=(total, *grid)).astype(layout.dtype),
            labels=rng.integers(-1, len(classes), size=total),
            keys=[f"{split}/bilder/ü{number}.jpg" for number in range(total)],
            metadata=[{"n": n, "s": "é" * (n % 3)} if with_metadata else {} for n in range(total)],
        )
        written[split], records[split] = columns, []
        start = 0
        for index, count in enumerate(counts):
            record = write_shard(
                path,
                columns,
                slice(start, start + count),
                split=split,
                index=index,
                layout=layout,
                block_samples=block_samples,
                with_metadata=with_metadata,
            )
            records[split].append(record)
            start += count
    files = {
        CODEBOOK_NAME: save({"codebook": rng.normal(size=(num_codes, dim)).astype(np.float32)}),
        SKIPPED_NAME: b'{"key": "broken.jpg", "split": "train", "reason": "truncated"}\n',
    }
    for name, data in files.items():
        (path / name).write_bytes(data)
    indexes = [
        write_index(path, split, entries)
        for split, entries in records.items()
        if indexed and entries
    ]
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
        codec="packed",
        container="wds",
        block_samples=block_samples,
        classes=classes,
        splits={split: tuple(entries) for split, entries in records.items()},
        files=(*(record_of(path, name) for name in files), *indexes),
        skipped=1,
        source_bytes=12345,
        quality={"psnr_db": 24.0125, "perplexity": 1e-05},
        job={"seed": seed, "größe": None},
    )
    card.write(path)
    return written


def write_shard(
    path: Path,
    columns: Columns,
    rows: slice,
    *,
    split: str,
    index: int,
    layout: TokenLayout,
    block_samples: int,
    with_metadata: bool = False,
) -> ShardRecord:
    """Write some rows as a shard."""
    with ShardWriter(path, split=split, index=index, codec=PackedCodec(layout)) as writer:
        for start in range(rows.start, rows.stop, block_samples):
            chosen = slice(start, min(start + block_samples, rows.stop))
            writer.write(
                Block(
                    tokens=columns.tokens[chosen],
                    labels=columns.labels[chosen].astype(np.int32),
                    keys=tuple(columns.keys[chosen]),
                    metadata=tuple(columns.metadata[chosen]) if with_metadata else None,
                )
            )
    return writer.record


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
