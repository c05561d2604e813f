"""Write the golden stores, their contents, and the list of damaged variants: `shards/golden`.

    uv run python tools/golden/make.py [FOLDER]

All content follows integer rules, so every run gives the same samples. Bytes from zlib and lzma may
differ between their versions; token frames do not.

Shape letters: N samples, H W grid, K codes, R inner nodes of a context tree.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from golden.damage import list_damage

from seit.shards import Block, TokenLayout
from seit.shards.context import ContextTables
from seit.shards.context.tables import LEFT, make_squash
from seit.shards.context.tree import TreeShape
from seit.testing import write_store

GOLDEN = Path(__file__).parents[2] / "shards" / "golden"
BLOCK_SAMPLES = 3
CLASSES = ("ant", "bee", "Käfer")
_KEYS = ("{split}/{number}.jpg", "{split}/ü/{number}.png", "鳥/{split} {number}")
_METADATA = ({}, {"caption": "ein Käfer 🐞", "box": [1, 2.5, -3e-05]}, {}, {"a": {"b": None}})


@dataclass(frozen=True)
class Golden:
    """A golden store: its name, its layout, and the samples of each shard by split.

    Attributes:
        num_smooth: number of samples at the start of a split that seldom change along a row;
            the others have no order.
        marked: whether samples have metadata.
    """

    name: str
    layout: TokenLayout
    shards: Mapping[str, tuple[int, ...]]
    codec: str = "packed"
    container: str = "wds"
    num_smooth: int = 0
    marked: bool = True
    indexed: bool = True


STORES = (
    Golden("packed-wds", TokenLayout((3, 5), 40), {"train": (4, 0, 2), "val": (3,)}),
    Golden(
        "context-wds",
        TokenLayout((4, 7), 40),
        {"train": (4, 0, 2), "val": (5,)},
        codec="context",
        num_smooth=6,
    ),
    Golden(
        "packed-zarr",
        TokenLayout((3, 5), 40),
        {"train": (6, 2), "val": (2,), "test": ()},
        container="zarr",
    ),
    Golden(
        "context-zarr",
        TokenLayout((4, 7), 40),
        {"train": (6, 2), "val": (2,)},
        codec="context",
        container="zarr",
        num_smooth=6,
    ),
    Golden(
        "two-codes",
        TokenLayout((2, 5), 2),
        {"train": (4,), "val": (3,), "test": ()},
        marked=False,
        indexed=False,
    ),
    Golden("many-codes", TokenLayout((2, 3), 70_000), {"train": (4,), "val": (3,)}, marked=False),
)
"""``two-codes`` has no block index and is read by its tar headers; ``many-codes`` takes uint32."""


def main() -> None:
    """Rewrite everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=GOLDEN)
    folder = parser.parse_args().folder
    for golden in STORES:
        shutil.rmtree(folder / golden.name, ignore_errors=True)
        make_store(golden, folder)
    lines = [json.dumps(variant, ensure_ascii=False) for variant in list_damage(folder)]
    text = '{"variants": [\n' + ",\n".join(lines) + "\n]}\n"
    (folder / "damaged.json").write_text(text, encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size:,} bytes")


def make_store(golden: Golden, folder: Path) -> None:
    """Write a store, with `expected.json` next to it."""
    splits = {name: make_split(golden, name) for name in golden.shards}
    write_store(
        folder / golden.name / "store",
        splits,
        golden.layout,
        codec=golden.codec,
        container=golden.container,
        tables=make_tables(golden.layout.num_codes) if golden.codec == "context" else None,
        codebook=make_codebook(golden.layout.num_codes),
        classes=CLASSES,
        block_samples=BLOCK_SAMPLES,
        shard_samples=golden.shards,
        indexed=golden.indexed,
    )
    expected = {
        "num_codes": golden.layout.num_codes,
        "grid": list(golden.layout.grid),
        "classes": list(CLASSES),
        "splits": {name: _describe(block) for name, block in splits.items()},
    }
    text = json.dumps(expected, ensure_ascii=False, separators=(",", ":")) + "\n"
    (folder / golden.name / "expected.json").write_text(text, encoding="utf-8")


def make_split(golden: Golden, split: str) -> Block:
    """Return the samples of a split as one block."""
    layout, count = golden.layout, sum(golden.shards[split])
    numbers = range(count)
    start = 100 * sorted(golden.shards).index(split)
    tokens = np.empty((count, layout.length), dtype=layout.dtype)
    for number in numbers:
        tokens[number] = _scattered(start + number, layout)
        if number < golden.num_smooth:
            tokens[number] = _smooth(start + number, layout)
    metadata = tuple(_METADATA[number % len(_METADATA)] for number in numbers)
    return Block(
        tokens=tokens.reshape(count, *layout.grid),
        labels=np.array([(start + number) % 4 - 1 for number in numbers], dtype=np.int32),
        keys=tuple(_KEYS[n % len(_KEYS)].format(split=split, number=n) for n in numbers),
        metadata=metadata if golden.marked and any(metadata) else None,
    )


def _scattered(number: int, layout: TokenLayout) -> np.ndarray:
    """Return unordered ids from a linear congruential generator, including K − 1."""
    ids, state = [layout.num_codes - 1], 2 * number + 1
    while len(ids) < layout.length:
        state = (6364136223846793005 * state + 1442695040888963407) % (1 << 64)
        ids.append((state >> 33) % layout.num_codes)
    return np.array(ids)


def _smooth(number: int, layout: TokenLayout) -> np.ndarray:
    """Return one id for the first half of the grid and another for the second."""
    places = np.arange(layout.length)
    return (7 * number + 3 * (places >= layout.length // 2 + number % 9)) % layout.num_codes


def make_codebook(num_codes: int) -> np.ndarray:
    """Return a codebook float32 (K, 1) of few values, which compresses well."""
    return (np.arange(num_codes, dtype=np.float32) % 64)[:, None] / 8


def make_tables(num_codes: int) -> ContextTables:
    """Return tables that predict a token from its neighbors and use every field.

    Some nodes have so large a bias that clamping it changes the decoded tokens.
    """
    shape = TreeShape(num_codes)
    paths = (np.arange(num_codes) * 37 + 5) % shape.num_leaves
    weights = np.zeros((3, num_codes + 1, shape.row_size), dtype=np.int8)
    for code, path in enumerate(paths.tolist()):
        depth = 0
        for base, levels in zip(shape.bases, shape.levels, strict=True):
            prefix = path >> (shape.depth - depth)
            node = 1
            for level in range(levels):
                turn = (path >> (shape.depth - depth - level - 1)) & 1
                entry = base + (prefix << levels) + node
                weights[:, code, entry] = np.array([60, 40, 20]) * (2 * turn - 1)
                node = 2 * node + turn
            depth += levels
    rows = np.arange(shape.row_size)
    bias = rows * 29 % 21 - 10 + 100 * (rows % 13 == 3) - 120 * (rows % 13 == 9)
    weights[LEFT, num_codes] = np.where(abs(bias) > 90, -100 * np.sign(bias), 0)
    return ContextTables(
        num_codes=num_codes,
        paths=paths.astype(np.uint16),
        squash=make_squash(),
        bias=bias.astype(np.int16),
        weights=weights[:2],
        corner=weights[2, :, : shape.first_size].copy(),
    )


def _describe(block: Block) -> dict[str, object]:
    return {
        "tokens": block.tokens.tolist(),
        "labels": block.labels.tolist(),
        "keys": list(block.keys),
        "metadata": list(block.metadata or ({},) * len(block.keys)),
    }


if __name__ == "__main__":
    main()
