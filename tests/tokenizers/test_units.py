"""Units of speech models: nearest centers of a layer of transformers, and stores of them."""

import json

import numpy as np
import pytest
import torch
from support.speech import FAMILIES, reference, save, waves, whisper, write_tones

import seit
from seit.errors import DamagedError, UsageError
from seit.ingest import fit_units
from seit.tokenizers import (
    HiddenLayer,
    UnitTokenizer,
    load_speech,
    load_tokenizer,
    measure_quality,
    save_tokenizer,
    with_backbone,
)


def layer_of(folder, layer=1):
    return HiddenLayer(load_speech(folder), layer)


def fitted(folder, *, layer=1, codes=5, samples=8000):
    return UnitTokenizer.fit(
        waves(samples, 8), layer_of(folder, layer), backbone="tiny", num_codes=codes
    )


@pytest.fixture(scope="module")
def hubert(tmp_path_factory):
    return save(reference("hubert"), tmp_path_factory.mktemp("models") / "hubert")


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_ids_are_the_nearest_centers_of_the_hidden_states_of_transformers(kind, layer, tmp_path):
    model = reference(kind, layerdrop=0.5, hidden_dropout=0.5, mask_time_prob=0.5)
    tokenizer = fitted(save(model, tmp_path / "model"), layer=layer)
    inputs = waves(8000, 3)
    scaled = (inputs - inputs.mean(1, keepdim=True)) / torch.sqrt(
        inputs.var(1, correction=0, keepdim=True) + 1e-7
    )
    with torch.no_grad():
        states = model(scaled, output_hidden_states=True).hidden_states[layer].double()
    kept = tokenizer.tensors()
    centers = tokenizer.codebook[:-1].double() * kept["scale"] + kept["mean"]
    assert torch.equal(tokenizer.encode(inputs)[:, 0], torch.cdist(states, centers).argmin(-1))


def test_whisper_gives_fifty_ids_a_second(tmp_path):
    tokenizer = fitted(save(whisper(), tmp_path / "model"), samples=16_000)
    assert tokenizer.grid == (1, 50)
    assert tokenizer.encode(waves(16_000, 2)).shape == (2, 1, 50)


def test_padding_changes_no_id(hubert):
    tokenizer = fitted(hubert)
    clip = waves(5000, 1)
    padded = torch.zeros(1, 8000)
    padded[:, :5000] = clip
    frames = (5000 - 400) // 320 + 1
    expected = tokenizer.ids(tokenizer.features(clip[0]))
    found = tokenizer.encode(torch.cat([waves(8000, 1), padded, torch.zeros(1, 8000)]))[:, 0]
    assert torch.equal(found[1], expected)
    assert (found[1, :frames] < tokenizer.padding_id).all()
    assert (found[1, frames:] == tokenizer.padding_id).all()
    assert (found[2] == tokenizer.padding_id).all()


def test_quality_is_the_variance_that_the_centers_explain(hubert):
    tokenizer, inputs = fitted(hubert), waves(8000, 4)
    quality = measure_quality(tokenizer, inputs)
    frames = torch.cat([layer_of(hubert)(one[None])[0] for one in inputs]).double()
    kept = tokenizer.tensors()
    ids = tokenizer.encode(inputs).flatten()
    nearest = tokenizer.codebook[ids].double() * kept["scale"] + kept["mean"]
    rest = (frames - nearest).square().sum() / (frames - frames.mean(0)).square().sum()
    shares = torch.bincount(ids, minlength=4).double() / len(ids)
    assert quality.explained_variance == pytest.approx(1 - float(rest), abs=1e-5)
    assert quality.codebook_usage == float((shares > 0).double().mean())
    assert quality.perplexity == pytest.approx(float(torch.exp(torch.special.entr(shares).sum())))


def test_a_fit_is_the_same_each_time(hubert):
    assert fitted(hubert).fingerprint == fitted(hubert).fingerprint
    with pytest.raises(UsageError, match="8 windows yield 192 frames, too few for 97 codes"):
        fitted(hubert, codes=97)
    with pytest.raises(UsageError, match=r"layer is 3; this Hubert has 0 .* to 2"):
        fitted(hubert, layer=3)


def test_a_file_names_its_speech_model_and_holds_no_path(hubert, tmp_path):
    tokenizer, path = fitted(hubert), tmp_path / "units.safetensors"
    save_tokenizer(tokenizer, path)
    assert str(hubert).encode() not in path.read_bytes()
    found = load_tokenizer(path)
    assert found.fingerprint == tokenizer.fingerprint
    with pytest.raises(UsageError, match=r"need its weights .* --backbone hf:PATH"):
        found.encode(waves(8000, 1))
    with pytest.raises(UsageError, match="--backbone hf:PATH"):
        with_backbone(found, None)
    again = with_backbone(found, f"hf:{hubert}").to("cpu")
    assert torch.equal(again.encode(waves()), tokenizer.encode(waves()))
    with pytest.raises(UsageError, match="hold no sound to decode"):
        found.decode(np.zeros((1, *found.grid), np.int64))


def test_another_speech_model_is_refused(hubert, tmp_path):
    tokenizer = fitted(hubert)
    config = json.loads((hubert / "config.json").read_text())
    for name, changes in {"heads": {"num_attention_heads": 4}, "norm": {}}.items():
        folder = save(reference("hubert"), tmp_path / name)
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
    (tmp_path / "norm/preprocessor_config.json").write_text('{"do_normalize": false}')
    for name in ("heads", "norm"):
        with pytest.raises(UsageError, match="another speech model than that of these units, tiny"):
            tokenizer.with_backbone(tmp_path / name)


def test_settings_of_a_hostile_file_are_refused(hubert):
    tokenizer = fitted(hubert)
    for changes in (
        {"frames": 1 << 40},
        {"layer": -1},
        {"window": 10},
        {"backbone": "\x1b[2J"},
        {"backbone": 3},
    ):
        with pytest.raises(DamagedError):
            UnitTokenizer.restore(
                tokenizer.codebook, tokenizer.tensors(), {**tokenizer.settings(), **changes}
            )
    with pytest.raises(DamagedError, match="expected"):
        UnitTokenizer.restore(tokenizer.codebook, {}, tokenizer.settings())


@pytest.mark.slow
def test_a_corpus_of_units_is_tokenized_trained_on_and_predicted(hubert, tmp_path):
    sounds = write_tones(tmp_path / "tones")
    backbone = f"hf:{hubert}"
    made, _, _ = fit_units(sounds, backbone, layer=1, codes=6, seconds=0.2)
    save_tokenizer(made, tmp_path / "units.safetensors")
    job = {"out": tmp_path / "store", "tokenizer": str(tmp_path / "units.safetensors")}
    with pytest.raises(UsageError, match="--backbone hf:PATH"):
        seit.tokenize(sounds, **job)
    result = seit.tokenize(sounds, **job, backbone=backbone)
    assert result.quality["explained_variance"] > 0.3
    assert seit.info(tmp_path / "store").grid == (1, 9)
    assert seit.verify(tmp_path / "store").ok
    with pytest.raises(UsageError, match="--backbone hf:PATH"):
        seit.tokenize(sounds, out=tmp_path / "store", update=True)
    run = seit.train(
        tmp_path / "store",
        out=tmp_path / "run",
        **{
            "model.name": "vit_tiny_patch16_224",
            "model.stem": "1/1/0",
            "model.embed_dim": 16,
            "model.depth": 1,
            "model.num_heads": 1,
            "augment.crop_size": 1,
            "data.batch_size": 4,
            "steps": 2,
        },
    )
    assert run.steps == 2
    files = [sounds / "val/low/0.wav"]
    with pytest.raises(UsageError, match="--backbone hf:PATH"):
        seit.predict(tmp_path / "run", files=files)
    found = seit.predict(tmp_path / "run", files=files, backbone=backbone)
    assert {name for name, _ in found.predictions[0].classes} == {"low", "high"}
