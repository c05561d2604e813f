"""A small store of six classes, and settings, that the tests of continual learning share."""

from dataclasses import replace

import numpy as np
from PIL import Image

import seit
from seit.config import build
from seit.continual_learning import ContinualConfig
from seit.ingest import TokenizeConfig, tokenize

CLASSES = ("bars-blue", "bars-red", "dots-blue", "dots-red", "rings-blue", "rings-red")
TINTS = {"blue": (40, 90, 230), "red": (230, 80, 30)}
CONFIG = build(
    ContinualConfig,
    {
        "method": "lae",
        "model": {
            "name": "vit_tiny_patch16_224",
            "stem": "2/2/0",
            "embed_dim": 16,
            "depth": 2,
            "num_heads": 2,
        },
        "data": {"batch_size": 8},
        "optim": {"lr": 5e-3},
        "schedule": {"steps": 5},
        "augment": {"crop_size": 8},
        "tuning": {"method": "adapter", "hidden_dim": 4, "num_blocks": 1, "learn_scale": True},
        "ranpac": {"dim": 40},
        "run": {
            "device": "cpu",
            "checkpoint_every": 1,
            "log_every": 1,
            "loggers": [],
        },
    },
    origin="test",
)


def changed(config=CONFIG, /, *, method=None, **groups):
    """The config with some settings of some groups changed."""
    groups = {
        name: replace(getattr(config, name), **values) if isinstance(values, dict) else values
        for name, values in groups.items()
    }
    return replace(config, method=method or config.method, **groups)


def make_store(folder):
    """A store of 8×8 grids of tinted patterns: six classes, two of each pattern."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:64, 0:64]
    for split, count in (("train", 16), ("val", 6)):
        for name in CLASSES:
            pattern, _, tint = name.partition("-")
            place = folder / "pictures" / split / name
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                y, x, size = random.integers((16, 16, 8), (48, 48, 16))
                shape = {
                    "bars": np.abs(rows - y) < size / 3,
                    "dots": (rows - y) ** 2 + (columns - x) ** 2 < size**2,
                    "rings": np.abs(np.hypot(rows - y, columns - x) - size) < 4,
                }[pattern]
                picture = np.where(shape[..., None], TINTS[tint], 30) + random.normal(
                    0, 8, (64, 64, 3)
                )
                Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(place / f"{number}.png")
    tokenize(
        folder / "pictures",
        folder / "store",
        TokenizeConfig(tokenizer="patch-pca-vq", size=64, codes=32, val_fraction=0.0),
    )
    return seit.open(folder / "store")
