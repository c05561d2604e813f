"""Studies of networks: speakers are held out, and references are those of the definitions."""

import csv
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "study"))
import brain
import layers
import speech


@pytest.fixture
def digits(tmp_path):
    for split, speaker, digit, take in (
        (split, speaker, digit, take)
        for take, split in enumerate(("val", "val", "train", "train", "train"))
        for speaker in speech.SPEAKERS
        for digit in range(10)
    ):
        clip = tmp_path / "fsdd" / split / str(digit) / f"{digit}_{speaker}_{take}.wav"
        clip.parent.mkdir(parents=True, exist_ok=True)
        clip.touch()
    return tmp_path / "fsdd"


def test_a_speaker_is_in_one_split(digits, tmp_path):
    held = [speech.write_manifest(digits, tmp_path / f"{seed}.csv", seed=seed) for seed in range(6)]
    assert sorted(held) == sorted(speech.SPEAKERS)
    rows = list(csv.DictReader((tmp_path / "2.csv").read_text().splitlines()))
    speakers = {split: set() for split in ("train", "val")}
    for row in rows:
        speakers[row["split"]].add(Path(row["path"]).stem.split("_")[1])
    assert speakers["val"] == {held[2]}
    assert not speakers["train"] & speakers["val"]
    counts = Counter((row["split"], row["label"]) for row in rows)
    assert set(counts.values()) == {speech.PER_DIGIT}


def test_rows_are_paired_by_seed():
    tops = {"linear": {0: 0.5, 1: 0.7}, "lora": {0: 0.6, 1: 0.8}}
    sizes = {"tuning_parameters": 1, "parameters": 1000, "adapter_bytes": 10}
    found = {
        row: {seed: {"top1": top} | sizes for seed, top in own.items()} for row, own in tops.items()
    }
    table = speech.summary(found)
    lead = table["lora"]["lead_over_linear"]
    assert lead["mean"] == pytest.approx(0.1)
    assert lead["error"] == pytest.approx(0.0, abs=1e-12)
    assert table["linear"]["top1"]["error"] == pytest.approx(0.1)
    assert speech.floors(table)["S3 lora over linear"]["holds"]


def test_cka_has_its_known_values():
    floors = layers.cka(None)["floors"]
    assert all(one["holds"] for one in floors.values())


def test_planted_targets_are_driven_by_their_layer(tmp_path):
    random = np.random.default_rng(0)
    runs = {
        layer: {run: random.normal(size=(400, 8)) for run in ("00", "01")} for layer in ("a", "b")
    }
    planted = brain._plant(runs, tmp_path)
    assert planted[0] == ("a", brain.SNRS[0])
    assert planted[-1] == ("b", brain.SNRS[-1])
    found = np.concatenate([np.load(tmp_path / f"{run}.npy") for run in ("00", "01")])
    loud = [place for place, one in enumerate(planted) if one == ("b", brain.SNRS[-1])]
    x = np.concatenate([runs["b"][run] for run in ("00", "01")])
    predicted = x @ np.linalg.lstsq(x, found[:, loud], rcond=None)[0]
    share = predicted.var(0) / found[:, loud].var(0)
    expected = brain.SNRS[-1] / (1 + brain.SNRS[-1])
    assert share.mean() == pytest.approx(expected, abs=0.05)
