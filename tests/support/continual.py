"""A small store of six classes, and settings, that the tests of continual learning share."""

import json
from dataclasses import asdict, replace

import numpy as np
import torch
from PIL import Image

import seit
from seit.config import build
from seit.continual_learning import ContinualConfig, continual
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


def run(store, path, config=CONFIG, **settings):
    return continual(config, store, out=path, **settings)


class StoppedError(Exception):
    """Raised by a test's progress callback to end a run, as a kill would."""


def stop_at(step):
    def notify(done, total, figures):
        if done == step:
            raise StoppedError

    return notify


def comparable(result):
    """All of a result but what is measured of the machine or of one call."""
    figures = asdict(result)
    for name in ("seconds", "samples", "samples_per_second"):
        del figures[name]
    return json.dumps(figures, sort_keys=True)


def build_network(store, config):
    from seit.continual_learning.start import _make_network
    from seit.training.feeds import make_augment

    torch.manual_seed(config.run.seed)
    augment = make_augment(store, config, torch.device("cpu"))
    return _make_network(config, store, augment)[0]
