"""A small classifier that has learned three patterns, for tests to compress and analyze."""

import seit

SETTINGS = {
    "model": {
        "name": "vit_tiny_patch16_224",
        "stem": "2/2/0",
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
    },
    "data": {"batch_size": 12},
    "optim": {"lr": 2e-3, "lr_batch_size": 0},
    "schedule": {"steps": 40, "warmup_steps": 2},
    "augment": {"crop_size": 8},
    "ema": {"decay": 0.0},
    "run": {"device": "cpu", "loggers": []},
}


def learn(store, out):
    """Train the classifier on the store of patterns."""
    seit.train(store, out=out, config=SETTINGS)
