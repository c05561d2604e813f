"""Inner loops: unpacking, entropy decoding, averages of weights, and bytes of the codecs."""

import gzip
import lzma
from pathlib import Path

import numpy as np
import timm
import torch
from guard_bench.case import Case, Work
from timm.utils import ModelEmaV3

from seit.shards import pack, token_bits
from seit.shards.context.coder import Coder
from seit.shards.context.fit import fit_tables
from seit.stream.packed import unpack_rows
from seit.training.average import WeightAverage

SAMPLES, GRID, CODES, BATCH = 4096, (32, 32), 1024, 256


def smooth_ids(count: int) -> np.ndarray:
    """Return ids (N, H, W) that resemble their neighbors, uint16."""
    walk = np.random.default_rng(0).normal(size=(count, *GRID)).cumsum(1).cumsum(2)
    ranks = walk.reshape(-1).argsort().argsort().reshape(walk.shape)
    return (ranks * CODES // ranks.size).astype(np.uint16)


def coder_of(ids: np.ndarray) -> Coder:
    """Return a context coder fitted to ids."""
    codebook = np.arange(CODES, dtype=np.float64)[:, None]
    return Coder(fit_tables(ids, codebook, total_samples=1_000_000))


def resident(work: Path) -> Case:
    """Rows of packed ids in random order, against a gather of numpy from raw uint16 ids."""
    del work
    ids = np.random.default_rng(0).integers(CODES, size=(SAMPLES, GRID[0] * GRID[1]), dtype="u2")
    packed = torch.from_numpy(pack(ids, token_bits(CODES)))
    batches = np.random.default_rng(1).permutation(SAMPLES).reshape(-1, BATCH)
    return Case(
        Work(
            lambda: [unpack_rows(packed, b, length=ids.shape[1], num_codes=CODES) for b in batches]
        ),
        Work(lambda: [torch.from_numpy(ids[b].astype(np.int16)) for b in batches]),
        rounds=15,
    )


def context(work: Path) -> Case:
    """Entropy coded grids back to ids, against gzip of the raw ids."""
    del work
    ids = smooth_ids(256)
    coder = coder_of(ids)
    words, sizes = coder.encode(ids.reshape(len(ids), -1), GRID)
    ends = np.cumsum(sizes)
    bounds = np.stack([ends - sizes, ends], axis=1)
    zipped = [gzip.compress(one.tobytes()) for one in ids]
    return Case(
        Work(lambda: coder.decode(words, bounds, GRID)),
        Work(lambda: [np.frombuffer(gzip.decompress(one), np.uint16) for one in zipped]),
        rounds=15,
    )


def average(work: Path) -> Case:
    """An update of the averaged weights of a small ViT, against timm's."""
    del work
    model = timm.create_model("test_vit", num_classes=10)
    own = WeightAverage(model, decay=0.9, use_warmup=True)
    peer = ModelEmaV3(model, decay=0.9, use_warmup=True)
    return Case(
        Work(lambda: [own.update(model, step=9) for _ in range(50)]),
        Work(lambda: [peer.update(model, step=9) for _ in range(50)]),
        rounds=15,
    )


def codec_bytes() -> dict[str, float]:
    """Return bytes of packed ids, and of xz, over those of the context codec without its tables."""
    ids = smooth_ids(256)
    words, _ = coder_of(ids).encode(ids.reshape(len(ids), -1), GRID)
    coded = words.nbytes
    return {
        "bytes_packed": pack(ids.reshape(len(ids), -1), token_bits(CODES)).nbytes / coded,
        "bytes_xz": len(lzma.compress(ids.tobytes(), preset=9)) / coded,
    }
