"""`seit tune SOUNDS --backbone`: runs on waveforms, their use, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import soundfile
import torch
from support.speech import reference, save, whisper, write_tones

import seit
from seit.cli import main
from seit.errors import SeitError, UsageError
from seit.tensors import read_tensors
from seit.training import ADAPTER_NAME, Run, TrainConfig, open_sounds, training_rows
from seit.training.config import DataConfig

SHORT = {"batch_size": 8, "device": "cpu", "loss": {"label_smoothing": 0.0}, "run.loggers": ()}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with sounds, a speech model, and a run that tuned it."""
    folder = tmp_path_factory.mktemp("speech")
    write_tones(folder / "tones")
    save(reference("hubert"), folder / "hubert")
    tuned = seit.tune(
        folder / "tones",
        out=folder / "run",
        backbone=f"hf:{folder / 'hubert'}",
        method="lora",
        steps=12,
        **SHORT,
        **{"optim.lr": 3e-2, "optim.lr_batch_size": 0},
    )
    assert tuned.top1 == 1.0
    return folder


def test_a_run_holds_what_was_trained_and_no_more(place):
    run = Run.open(place / "run")
    result = run.info["result"]
    assert run.kind.name == "tune-speech"
    assert not (run.path / "model.safetensors").exists()
    assert (run.path / ADAPTER_NAME).stat().st_size < 16_000
    assert result["tuning_parameters"] == 2 * 2 * 2 * 8 * 32
    assert result["waveform_bytes"] == 2 * sum(
        soundfile.info(path).frames for path in (place / "tones").rglob("*.wav")
    )
    assert result["token_bytes"] == 24 * 1_280
    assert "hubert" in (run.path / "report.html").read_text()


def test_evaluation_and_prediction_take_the_speech_model_again(place, capsys):
    backbone = f"hf:{place / 'hubert'}"
    found = seit.evaluate(place / "run", store=place / "tones", backbone=backbone)
    assert found.loss == pytest.approx(Run.open(place / "run").info["result"]["loss"], abs=1e-6)
    files = [place / "tones/val/high/0.wav", place / "tones/val/low/0.wav"]
    named = seit.predict(place / "run", files=files, backbone=backbone, top=1).predictions
    assert [one.classes[0][0] for one in named] == ["high", "low"]
    main(["eval", str(place / "run"), str(place / "tones"), "--backbone", backbone, "--json"])
    assert json.loads(capsys.readouterr().out)["top1"] == 1.0
    with pytest.raises(UsageError, match="name its folder by --backbone"):
        seit.evaluate(place / "run", store=place / "tones")
    save(reference("hubert", intermediate_size=40), place / "other")
    with pytest.raises(UsageError, match="on another backbone"):
        seit.predict(place / "run", files=files, backbone=place / "other")


def test_classes_are_weighted_by_the_clips_that_are_trained_on(place, tmp_path):
    seit.tune(
        place / "tones",
        out=tmp_path / "run",
        backbone=f"hf:{place / 'hubert'}",
        method="linear",
        steps=1,
        **SHORT,
        **{"loss.class_weights": "balanced", "data.fraction": 0.5},
    )
    assert set(Run.open(tmp_path / "run").info["class_weights"].values()) == {1.0}


@pytest.mark.parametrize(("kind", "method"), [("hubert", "houlsby"), ("unispeech-sat", "full")])
def test_an_interrupted_run_resumes_to_the_same_weights(place, tmp_path, kind, method):
    save(reference(kind), tmp_path / kind)
    given = {"backbone": f"hf:{tmp_path / kind}", "steps": 4, "method": method, **SHORT}

    def stop(done, total, figures):
        if done == 2:
            raise KeyboardInterrupt

    seit.tune(place / "tones", out=tmp_path / "whole", **given)
    with pytest.raises(KeyboardInterrupt):
        seit.tune(place / "tones", out=tmp_path / "cut", progress=stop, **given)
    seit.tune(place / "tones", out=tmp_path / "cut", resume=True, **given)
    whole, cut = (read_tensors(tmp_path / name / ADAPTER_NAME) for name in ("whole", "cut"))
    assert all(torch.equal(one, cut[key]) for key, one in whole.items())


def test_all_methods_make_a_table(place, tmp_path):
    save(whisper(), tmp_path / "whisper")
    table = seit.tune(
        place / "tones",
        out=tmp_path / "all",
        backbone=tmp_path / "whisper",
        method="all",
        steps=1,
        **SHORT,
        **{"speech.seconds": 0.2},
    )
    assert list(table.skipped) == ["adapter"]
    assert len(table.rows) == 9
    assert (tmp_path / "all/report.html").is_file()


def test_the_papers_recipe_has_its_constants(place):
    settings = seit.api.plan_run(
        "tune", place / "tones", backbone="hf:models/hubert-base", recipe="tune-speech-paper"
    )
    tuning = settings.tuning
    assert (tuning.targets, tuning.alpha / tuning.rank) == (("q", "k"), 1 / 8)
    assert (tuning.zero_start, settings.speech.projector) == (False, 256)
    assert settings.model.name == "hubert-base"


def test_clips_of_one_length_are_cut_and_padded(place):
    data = open_sounds(place / "tones", seconds=0.15)
    assert {len(clip.samples) for clip in data["train"].clips} == {2_400}
    assert len(open_sounds(place / "tones", seconds=0.05)["val"]) > len(data["val"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data.sampling", "balanced"),
        ("data.order", "window"),
        ("data.window_blocks", 3),
        ("data.mode", "streaming"),
        ("augment.time_masks", 2),
        ("model.drop_path", 0.3),
        ("pretrained", "weights.pt"),
    ],
)
def test_settings_of_tokens_are_refused(place, tmp_path, name, value):
    given = {"backbone": f"hf:{place / 'hubert'}", "method": "linear", "steps": 1, **SHORT}
    with pytest.raises(UsageError, match=rf"{name} is {value!r}, but .*; set it to") as found:
        seit.tune(place / "tones", out=tmp_path / "run", **given, **{name: value})
    assert "\n" not in str(found.value)
    assert not (tmp_path / "run").exists()


def test_what_does_not_fit_is_told_in_one_line(place, tmp_path):
    backbone, tones = f"hf:{place / 'hubert'}", place / "tones"
    out = tmp_path / "run"
    with pytest.raises(UsageError, match="pass --download"):
        seit.tune(tones, out=out, backbone="hf:facebook/hubert-base-ls960", **SHORT)
    with pytest.raises(UsageError, match="leave --model out"):
        seit.tune(tones, out=out, backbone=backbone, model="vit_tiny_patch16_224", **SHORT)
    with pytest.raises(UsageError, match="init_from is"):
        seit.tune(tones, out=out, backbone=backbone, init_from=place / "run", **SHORT)
    with pytest.raises(UsageError, match=r"speech\.seconds is 100"):
        seit.tune(tones, out=out, backbone=backbone, **SHORT, **{"speech.seconds": 100.0})
    with pytest.raises(UsageError, match="has no split 'val'"):
        seit.tune(tones / "train/low", out=out, backbone=backbone, **SHORT)
    shutil.copytree(tones, tmp_path / "cut")
    (tmp_path / "cut/train/low/0.wav").write_bytes(b"RIFF")
    soundfile.write(tmp_path / "cut/train/low/1.wav", [0.0] * 100, 16_000)
    assert len(open_sounds(tmp_path / "cut")["train"]) == 14
    (tmp_path / "cut/store.json").write_text("{}")
    with pytest.raises(UsageError, match="is a store of tokens"):
        seit.tune(tmp_path / "cut", out=out, backbone=backbone, **SHORT)
    with pytest.raises(UsageError, match="learned no network for the tokens"):
        seit.export(place / "run", out=tmp_path / "model")
    assert not Path(out).exists()


def test_a_damaged_adapter_is_told(place, tmp_path):
    shutil.copytree(place / "run", tmp_path / "run")
    path = tmp_path / "run" / ADAPTER_NAME
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SeitError):
        seit.evaluate(tmp_path / "run", store=place / "tones", backbone=place / "hubert")


@pytest.mark.slow
def test_a_cached_stem_learns_the_same(place, tmp_path):
    given = {"backbone": f"hf:{place / 'hubert'}", "method": "lora", "steps": 3, **SHORT}
    plain = seit.tune(place / "tones", out=tmp_path / "plain", **given)
    cached = seit.tune(
        place / "tones", out=tmp_path / "cached", **given, **{"speech.stem_cache_bytes": 1 << 22}
    )
    assert cached.loss == pytest.approx(plain.loss, abs=1e-4)
    with pytest.raises(UsageError, match="the method full trains the convolutions too"):
        seit.tune(
            place / "tones",
            out=tmp_path / "full",
            **{**given, "method": "full", "speech.stem_cache_bytes": 1 << 22},
        )


def test_the_classifier_reads_the_layer_that_is_named(place, tmp_path):
    given = {"backbone": f"hf:{place / 'hubert'}", "method": "linear", **SHORT}
    first = seit.tune(place / "tones", out=tmp_path / "run", layer="layers.0", steps=1, **given)
    whole = Run.open(place / "run").info["result"]["parameters"]
    assert first.parameters < 0.8 * whole
    backbone = {"store": place / "tones", "backbone": given["backbone"]}
    assert seit.evaluate(tmp_path / "run", **backbone).loss == pytest.approx(first.loss, abs=1e-6)
    with pytest.raises(UsageError, match=r"no block 2; its blocks are layers\.0 to layers\.1"):
        seit.tune(place / "tones", out=tmp_path / "far", layer="layers.2", steps=1, **given)
    with pytest.raises(UsageError, match=r"reads layers\.0, layers\.1, … of a speech model"):
        seit.tune(place / "tones", out=tmp_path / "stem", layer="stem", steps=1, **given)


def test_a_fraction_of_sounds_keeps_all_clips_of_a_file(tmp_path):
    write_tones(tmp_path / "tones")
    train = open_sounds(tmp_path / "tones", seconds=0.1)["train"]
    files = [clip.file for clip in train.clips]
    assert len(set(files)) < len(files)
    rows = training_rows(train, TrainConfig(data=DataConfig(fraction=0.5)))
    kept = {files[row] for row in rows}
    assert len(kept) == len(set(files)) // 2
    assert rows.tolist() == [row for row, file in enumerate(files) if file in kept]
