"""`seit quickstart` on a small corpus of one's own."""

import json
import shutil

import pytest

import seit
from seit.analysis.quickstart import _config as settings_of
from seit.cli import main
from seit.demo import write_corpus
from seit.errors import UsageError
from seit.training import Run


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "renders"
    write_corpus(folder, num_train=70, num_val=10, size=64, workers=1)
    return folder


def quickstart(capsys, *arguments):
    main(["quickstart", *map(str, arguments), "--json"])
    return json.loads(capsys.readouterr().out)


def test_a_store_of_something_else_is_left_alone(corpus, tmp_path):
    store = tmp_path / "out" / "store"
    seit.tokenize(corpus, out=store, size=64, codes=16, tokenizer="patch-pca-vq")
    before = (store / "store.json").read_bytes()
    with pytest.raises(UsageError, match="was not made by seit quickstart; pass another folder"):
        seit.quickstart(out=tmp_path / "out", data=corpus, steps=1)
    assert (store / "store.json").read_bytes() == before


@pytest.mark.parametrize("kind", ["photos", "run", "store"])
def test_a_folder_of_other_things_is_left_alone(corpus, tmp_path, kind):
    """Its first argument is where results go, and that of other commands is what they read."""
    names = {"photos": "cat/1.jpg", "run": "report.html", "store": "store.json"}
    place = tmp_path / "place"
    for name in (names[kind], "config.yaml") if kind == "run" else (names[kind],):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("mine")
    before = sorted(place.rglob("*"))
    with pytest.raises(UsageError, match="not of seit quickstart; name a new folder"):
        seit.quickstart(out=place, data=corpus, steps=1)
    assert sorted(place.rglob("*")) == before
    assert (place / names[kind]).read_text() == "mine"


def test_few_pictures_are_one_batch(corpus, tmp_path):
    few = tmp_path / "few"
    for path in sorted(corpus.glob("train/*/*.jpg"))[:12]:
        (few / "train" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, few / "train" / path.parent.name)
    shutil.copytree(corpus / "val", few / "val")
    result = seit.quickstart(out=tmp_path / "out", data=few, steps=1, device="cpu")
    assert result.steps == 1
    config = Run.open(tmp_path / "out" / "run-tokens").config
    assert (config.data.batch_size, config.schedule.warmup_steps) == (12, 0)


def test_settings_fit_small_grids_and_short_runs(pattern_store):
    config = settings_of(pattern_store, steps=60, seed=3, device="cpu")
    assert config.model.stem == "1/1/0", "of the recipe's 4×4 tokens there would be one"
    assert (config.schedule.steps, config.schedule.warmup_steps, config.run.seed) == (60, 10, 3)
    usual = settings_of(pattern_store, steps=None, seed=0, device="cpu").schedule
    assert (usual.steps, usual.warmup_steps) == (240, 40)


def test_it_compares_tokens_with_pixels_and_goes_on_where_it_stopped(corpus, tmp_path, capsys):
    out = tmp_path / "out"
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(corpus.rglob("*.jpg"))[:12]):
        shutil.copy(path, flat / f"{number}.jpg")
    with pytest.raises(SystemExit) as refused:  # without classes; it is not in the way below
        quickstart(capsys, "--out", out, "--data", flat, "--steps", 3, "--device", "cpu")
    assert refused.value.code == 2
    arguments = ("--out", out, "--data", corpus, "--steps", 3, "--device", "cpu")
    result = quickstart(capsys, *arguments)
    assert result["samples"] == 80
    assert result["steps"] == 3
    assert 0 <= result["top1_tokens"] <= 1
    assert result["val_samples"] == 10
    assert 0 < result["p_value"] <= 1
    assert 0 <= result["top1_pixels"] <= 1
    assert result["bytes_per_sample_tokens"] > 1280
    assert result["bytes_ratio"] == pytest.approx(
        result["bytes_per_sample_source"] / result["bytes_per_sample_tokens"]
    )
    runs = [Run.open(out / name).config for name in ("run-tokens", "run-pixels")]
    assert runs[0].model == runs[1].model
    assert runs[0].schedule == runs[1].schedule
    page = (out / "report.html").read_text()
    assert page.count("<img") == 16
    assert "no difference shown: p = " in page or " of the pixels', p = " in page
    for text in ("Learning curves", "Storage", "Confusion", "gear"):
        assert text in page
    again = quickstart(capsys, *arguments)
    assert {**again, "seconds": 0} == {**result, "seconds": 0}
