"""A small classifier that has learned three patterns, to compress."""

import pytest

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


@pytest.fixture(scope="session", autouse=True)
def _unmeasured():
    """Leave out the measurement at the end of compression, which starts a process each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEIT_COMPRESSION_MEASURE", "false")
        yield


@pytest.fixture(scope="session")
def learned(made_once, pattern_store):
    """Return the folder of a finished run of `seit train`."""

    def make(folder):
        seit.train(pattern_store, out=folder / "run", config=SETTINGS)

    return made_once("compressible", make) / "run"
