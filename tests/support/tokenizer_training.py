"""Small settings that the tests of learned tokenizers share."""

from contextlib import contextmanager

import pytest

from seit.tokenizer_training import loop

SMALL = {
    "codes": 32,
    "dim": 4,
    "encoder_width": 8,
    "encoder_blocks": 1,
    "decoder_width": 8,
    "decoder_blocks": 1,
    "crop": 32,
    "device": "cpu",
}
"""A network of a few thousand weights."""
NOTED = {"ema": 0.5, "checkpoint_every": 2, "log_every": 1, "loggers": ()}
"""An average of the weights, checkpoints and lines every few steps."""


@contextmanager
def few_start_batches(count):
    """Let trainings start from the patches of fewer batches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_START_BATCHES", count)
        yield
