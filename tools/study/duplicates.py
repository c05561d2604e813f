"""Measure the recall of `seit duplicates` on known copies, and its other finds; prints JSON.

    uv run python tools/study/duplicates.py STORE PHOTOS --count 400

STORE was tokenized from PHOTOS. Copies of some photos of a split are changed, tokenized with the
store's tokenizer, and added to that split. Recall is the share of copies that are paired with their
original. Pairs among the photos themselves are listed separately.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance

import seit
from seit.analysis.duplicates.search import Duplicates, find_duplicates
from seit.ingest import TokenizeConfig, tokenize
from seit.stores import merge_stores
from seit.tokenizers import save_tokenizer
from seit.training.versions import environment

THRESHOLDS = (0.8, 0.85, 0.9, 0.95)
QUALITY = 92
"""JPEG quality of the copies, unless the change is another quality."""
BORDER = 8
"""Pixels that crops remove."""
Change = Callable[[Image.Image], Image.Image]


def mirrored(image: Image.Image) -> Image.Image:
    """Mirror a picture."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def cropped(image: Image.Image) -> Image.Image:
    """Crop a border on all sides."""
    return image.crop((BORDER, BORDER, image.width - BORDER, image.height - BORDER))


CHANGES: Mapping[str, tuple[Change, int]] = {
    "jpeg60": (lambda image: image, 60),
    "jpeg30": (lambda image: image, 30),
    "brighter5": (lambda image: ImageEnhance.Brightness(image).enhance(1.05), QUALITY),
    "darker5": (lambda image: ImageEnhance.Brightness(image).enhance(0.95), QUALITY),
    "crop8": (cropped, QUALITY),
    "corner8": (lambda image: image.crop((BORDER, BORDER, *image.size)), QUALITY),
    "mirror": (mirrored, QUALITY),
    "mirror-crop8": (lambda image: cropped(mirrored(image)), QUALITY),
}
"""Name → change of a photo, and JPEG quality of the copy."""


def main() -> None:
    """Run the study and print its JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    split = seit.open(arguments.store)[arguments.split]
    rng = np.random.default_rng(arguments.seed)
    rows = rng.choice(len(split), min(arguments.count, len(split)), replace=False)
    keys = [split.keys[row] for row in np.sort(rows).tolist()]
    with tempfile.TemporaryDirectory() as folder:
        joined = join_copies(arguments.store, arguments.photos, keys, Path(folder))
        with_copies = find(joined, "train")
    started = time.perf_counter()
    among = find(arguments.store, arguments.split)
    report = {
        "study": "duplicates",
        "samples": len(split),
        "copies": len(keys),
        "seed": arguments.seed,
        "recall": recalls(with_copies, len(keys)),
        "photo_pairs": len(split) * (len(split) - 1) // 2,
        "found_among_photos": {
            f"{least:g}": sum(pair.score >= least for pair in among.pairs) for least in THRESHOLDS
        },
        "seconds": round(time.perf_counter() - started, 2),
        "listed": [asdict(pair) for pair in among.pairs],
        "environment": environment(torch.device("cpu")),
    }
    print(json.dumps(report, indent=2))


def find(store: Path, split: str) -> Duplicates:
    """Find all pairs within a split above the lowest threshold."""
    return find_duplicates(
        seit.open(store),
        between=(split, split),
        threshold=min(THRESHOLDS),
        most_pairs=10_000_000,
    )


def join_copies(store: Path, photos: Path, keys: Sequence[str], folder: Path) -> Path:
    """Write ``store`` plus changed copies of ``keys`` in ``train`` to a new store."""
    for name, (change, quality) in CHANGES.items():
        for key in keys:
            path = folder / "copies" / name / key
            path.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(photos / key) as image:
                change(image.convert("RGB")).save(path, "JPEG", quality=quality)
    tokenizer = folder / "tokenizer.safetensors"
    save_tokenizer(seit.open(store).load_tokenizer(), tokenizer)
    tokenize(
        folder / "copies",
        folder / "copied",
        TokenizeConfig(tokenizer=str(tokenizer), val_fraction=0, codec="packed"),
    )
    merge_stores(folder / "joined", [store, folder / "copied"], codec="packed", container="wds")
    return folder / "joined"


def recalls(found: Duplicates, num_copies: int) -> dict[str, dict[str, float]]:
    """Return the share of copies found, by change and threshold."""
    hits: Counter[tuple[str, float]] = Counter()
    for pair in found.pairs:
        change, _, original = pair.second.key.partition("/")
        if change in CHANGES and original == pair.first.key:
            for least in THRESHOLDS:
                hits[change, least] += pair.score >= least
    return {
        change: {f"{least:g}": hits[change, least] / num_copies for least in THRESHOLDS}
        for change in CHANGES
    }


if __name__ == "__main__":
    main()
