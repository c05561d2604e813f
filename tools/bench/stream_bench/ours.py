"""Define seit's loaders for the comparison with peers, and their upper bounds.

Legend: b samples per batch, N samples, L tokens per sample.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from stream_bench.peers import FULL, Batches, Peer, Start, arrays, data_loader

import seit
from seit.files import sha256_of
from seit.shards import (
    BLOCK_SAMPLES,
    CODEBOOK_NAME,
    Block,
    Card,
    FileRecord,
    PackedCodec,
    ShardWriter,
    TokenizerInfo,
    TokenLayout,
    write_index,
)
from seit.stores import convert_store
from seit.stream import Loader
from seit.stream.datasets import TokenDataset
from seit.stream.packed import unpack_rows

SHARD_BLOCKS = 20
NUM_CODES = 1024
CLASSES = tuple(f"class {number}" for number in range(1000))
BLOCK_WINDOW = "windows of 64 blocks"


def write_packed(work: Path, folder: Path) -> None:
    """Write a store of packed tokens."""
    tokens, labels = arrays(work)
    side = int(tokens.shape[1] ** 0.5)
    layout = TokenLayout(grid=(side, side), num_codes=NUM_CODES)
    codebook = np.random.default_rng(0).normal(size=(NUM_CODES, 16)).astype(np.float32)
    save_file({"codebook": codebook}, folder / CODEBOOK_NAME)
    per_shard = SHARD_BLOCKS * BLOCK_SAMPLES
    records = []
    for index, first in enumerate(range(0, len(tokens), per_shard)):
        with ShardWriter(folder, split="train", index=index, codec=PackedCodec(layout)) as writer:
            for start in range(first, min(first + per_shard, len(tokens)), BLOCK_SAMPLES):
                rows = slice(start, min(start + BLOCK_SAMPLES, first + per_shard, len(tokens)))
                writer.write(
                    Block(
                        tokens=np.asarray(tokens[rows]).reshape(-1, side, side),
                        labels=labels[rows].astype(np.int32),
                        keys=tuple(f"{row:08d}" for row in range(rows.start, rows.stop)),
                        metadata=None,
                    )
                )
        records.append(writer.record)
    path = folder / CODEBOOK_NAME
    card = Card(
        tokenizer=TokenizerInfo(
            name="random",
            fingerprint="0" * 64,
            modality="image",
            preprocessing={},
            grid=layout.grid,
            codebook_size=NUM_CODES,
            codebook_dim=codebook.shape[1],
            flip_equivariant=False,
        ),
        codec=PackedCodec.name,
        container="wds",
        block_samples=BLOCK_SAMPLES,
        classes=CLASSES,
        splits={"train": tuple(records)},
        files=(
            FileRecord(CODEBOOK_NAME, path.stat().st_size, sha256_of(path)),
            write_index(folder, "train", records),
        ),
        skipped=0,
        source_bytes=0,
        quality={},
        job={},
    )
    card.write(folder)


def write_context(work: Path, folder: Path) -> None:
    """Write a store of context-coded tokens."""
    with tempfile.TemporaryDirectory(dir=work) as packed:
        write_packed(work, Path(packed))
        convert_store(packed, folder, codec="context")


def open_loader(folder: Path, batch_size: int, **settings: Any) -> Start:
    """Open a loader of a store; loading compiled code counts as import."""
    made: list[Loader] = []
    seit.stream.sample_at(np.arange(1), 1, seed=0, epoch=0)

    def batches() -> Iterator[tuple[Any, Any]]:
        if not made:
            split = seit.open(folder)["train"]
            made.append(seit.loader(split, batch_size=batch_size, **settings))
        for batch in made[0]:
            yield batch.tokens, batch.labels

    return batches


def open_global(folder: Path, batch_size: int, workers: int) -> Start:
    """Open a resident loader with a global shuffle."""
    del workers
    return open_loader(folder, batch_size, mode="resident", order="global")


def open_window(folder: Path, batch_size: int, workers: int) -> Start:
    """Open a resident loader with the order of a streaming one."""
    del workers
    return open_loader(folder, batch_size, mode="resident", order="window")


def open_streaming(folder: Path, batch_size: int, workers: int) -> Start:
    """Open a streaming loader."""
    del workers
    return open_loader(folder, batch_size, mode="streaming", order="window")


def open_dataset(folder: Path, batch_size: int, workers: int) -> Start:
    """Open a split as a map-style dataset with torch's collate."""
    made: list[Any] = []

    def start() -> Batches:
        if not made:
            dataset = TokenDataset(seit.open(folder)["train"])
            made.append(data_loader(dataset, workers, batch_size=batch_size, shuffle=True))
        for batch in made[0]:
            yield batch["tokens"], batch["label"]

    return start


def open_gather(folder: Path, batch_size: int, workers: int) -> Start:
    """Open the compiled gather alone, with a precomputed order and no labels."""
    del workers
    split = seit.open(folder)["train"]
    packed = torch.from_numpy(split.packed())
    shape = {"length": split.layout.length, "num_codes": split.layout.num_codes}
    order = np.random.default_rng(0).permutation(len(packed))

    def start() -> Batches:
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            yield unpack_rows(packed, rows, **shape), rows

    return start


OURS: dict[str, Peer] = {
    "resident_global": Peer("store", write_packed, open_global, FULL, workers=(0,)),
    "resident_window": Peer("store", write_packed, open_window, BLOCK_WINDOW, workers=(0,)),
    "streaming_packed": Peer("store", write_packed, open_streaming, BLOCK_WINDOW, workers=(0,)),
    "streaming_context": Peer("context", write_context, open_streaming, BLOCK_WINDOW, workers=(0,)),
    "token_dataset": Peer("store", write_packed, open_dataset, FULL),
}
LIMITS: dict[str, Peer] = {
    "gather": Peer("store", write_packed, open_gather, FULL, workers=(0,)),
}
