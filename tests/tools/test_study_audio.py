"""The study of sounds: each fold is validated once, and spreads are of means over folds."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import seit

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from study import audio


def test_each_fold_is_validated_once(tmp_path, monkeypatch):
    monkeypatch.setitem(
        audio.TASKS, "esc10", audio.Task("mel-vq-1s", "audio-small-cpu", folds=(1, 2))
    )
    names = {f"{split}/{kind}/{fold}-{kind}.wav" for split, fold in (("train", 1), ("val", 2))
             for kind in ("hum", "hiss")}  # fmt: skip
    for name in names:
        path = tmp_path / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(len(name)).normal(0, 0.1, 16_000)
        soundfile.write(path, noise, 16_000)
    audio.make_stores(tmp_path, "esc10", tmp_path / "clips")
    for fold in (1, 2):
        store = seit.open(tmp_path / f"esc10-fold{fold}")
        assert set(store["val"].keys) == {name for name in names if f"/{fold}-" in name}
        assert {*store["train"].keys, *store["val"].keys} == names
        assert store.classes == ("hiss", "hum")


def test_the_spread_is_that_of_means_over_folds():
    tops = {(1, 0): 0.5, (2, 0): 0.7, (1, 1): 0.6, (2, 1): 0.9}
    entries = [
        {"store": f"esc10-fold{fold}", "row": "tokens", "seed": seed, "top1": top1}
        for (fold, seed), top1 in tops.items()
    ]
    task = audio.Task("mel-vq-5s", "audio-small-cpu", folds=(1, 2))
    found = audio.summary(task, "esc10", entries)
    assert found.keys() == {"tokens"}
    tokens = found["tokens"]
    assert tokens["top1_by_seed"] == pytest.approx({"0": 0.6, "1": 0.75})
    assert tokens["top1"] == pytest.approx(0.675)
    assert tokens["top1_std_over_seeds"] == pytest.approx(0.15 / math.sqrt(2))
    assert tokens["top1_by_store"] == pytest.approx({"esc10-fold1": 0.55, "esc10-fold2": 0.8})
