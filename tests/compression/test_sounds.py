"""A classifier of sounds, compressed: tokens, training, files, evaluation, prediction."""

import numpy as np
import pytest
import soundfile

import seit
from seit.compression.footprint.targets.runs import RunTarget

RATE = 16_000
TONES = {"low": 220.0, "middle": 880.0, "high": 3520.0}
MODEL = {
    "model": {
        "name": "vit_tiny_patch16_224",
        "stem": "4/4/0",
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
    }
}
SETTINGS = {
    "data": {"batch_size": 12},
    "optim": {"lr": 2e-3, "lr_batch_size": 0},
    "schedule": {"warmup_steps": 2},
    "augment": {"crop_size": 32},
    "ema": {"decay": 0.0},
    "run": {"device": "cpu", "loggers": [], "eval_every": 100},
}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Return the folder of one-second tones in noise, their store and a run that tells them."""
    folder = tmp_path_factory.mktemp("sounds")
    random = np.random.default_rng(0)
    time = np.arange(RATE) / RATE
    for split, count in (("train", 16), ("val", 6)):
        for label, hertz in TONES.items():
            place = folder / "corpus" / split / label
            place.mkdir(parents=True)
            for number in range(count):
                tone = np.sin(2 * np.pi * hertz * random.uniform(0.9, 1.1) * time)
                clip = 0.3 * tone + 0.05 * random.standard_normal(RATE)
                soundfile.write(place / f"{number}.wav", clip, RATE)
    seit.tokenize(folder / "corpus", out=folder / "store", tokenizer="mel-vq-1s", codes=64)
    seit.train(folder / "store", out=folder / "run", config={**SETTINGS, **MODEL}, steps=30)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", ["int8", "int8-static", "w4", "qat", "prune"])
def test_a_classifier_of_sounds_becomes_smaller(sounds, tmp_path, method):
    store, out = sounds / "store", tmp_path / "run"
    result = seit.compress(
        sounds / "run", store=store, out=out, method=method, config=SETTINGS, steps=4
    )
    assert result.top1_before > 1 / 3
    assert result.agreement >= 0.9 or result.steps, "training changes predictions"
    assert result.bytes < 0.7 * result.bytes_before
    again = seit.evaluate(out, store=store)
    assert (again.top1, again.samples) == (result.top1, 18)
    clip = sounds / "corpus" / "val" / "low" / "0.wav"
    (found,) = seit.predict(out, files=[clip]).predictions
    assert found.error is None
    assert {name for name, _ in found.classes} == set(TONES)
    seit.export(out, out=tmp_path / "export", formats=["onnx"])
    assert (tmp_path / "export" / "audio_classifier.onnx").is_file()
    assert RunTarget(out).counts().whole.bytes == result.bytes
