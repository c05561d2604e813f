"""Small stores and settings that the tests of pre-training share."""

from dataclasses import replace

import numpy as np
from PIL import Image

import seit
from seit.config import build
from seit.ingest import TokenizeConfig, tokenize
from seit.pretraining import PretrainConfig

CLASSES = ("bars", "dots", "rings")
CONFIG = build(
    PretrainConfig,
    {
        "model": {
            "name": "vit_tiny_patch16_224",
            "stem": "2/2/0",
            "embed_dim": 16,
            "depth": 2,
            "num_heads": 2,
        },
        "data": {"batch_size": 12},
        "optim": {"lr": 2e-3, "lr_batch_size": 0, "betas": [0.9, 0.95], "weight_decay": 0.05},
        "schedule": {"steps": 6, "warmup_steps": 2},
        "augment": {"crop_size": 8},
        "mtm": {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2},
        "sit": {"head_hidden_dim": 32, "head_dim": 8},
        "probe": {"samples": 24, "val_samples": 12, "neighbours": 3},
        "run": {
            "device": "cpu",
            "eval_every": 4,
            "checkpoint_every": 2,
            "log_every": 1,
            "loggers": [],
        },
    },
    origin="test",
)


def changed(config=CONFIG, /, *, objective=None, **groups):
    """The config with some settings of some groups changed."""
    groups = {name: replace(getattr(config, name), **values) for name, values in groups.items()}
    return replace(config, objective=objective or config.objective, **groups)


def make_store(folder, *, labelled=True, val=True):
    """A store of 8×8 grids of patterns at random places and sizes, three classes of them."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:64, 0:64]
    for split, count in (("train", 12), ("val", 5)) if val else (("train", 12),):
        for name in CLASSES:
            place = folder / "pictures" / split / (name if labelled else "")
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                y, x, size = random.integers((8, 8, 4), (56, 56, 16))
                shape = {
                    "bars": np.abs(rows - y) < size / 3,
                    "dots": (rows - y) ** 2 + (columns - x) ** 2 < size**2,
                    "rings": np.abs(np.hypot(rows - y, columns - x) - size) < 3,
                }[name]
                picture = np.where(shape[..., None], random.integers(96, 256, 3), (rows[..., None]))
                noisy = picture + random.normal(0, 6, (64, 64, 3))
                Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(
                    place / f"{name}{number}.png"
                )
    tokenize(
        folder / "pictures",
        folder / "store",
        TokenizeConfig(tokenizer="patch-pca-vq", size=64, codes=32, val_fraction=0.0),
    )
    return seit.open(folder / "store")
