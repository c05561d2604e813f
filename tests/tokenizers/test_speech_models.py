"""Speech models: loading from folders, and frames equal to those of transformers."""

import json

import numpy as np
import pytest
import torch
from support.speech import FAMILIES, reference, save, waves, whisper

from seit.errors import UsageError
from seit.tokenizers import load_speech, random_speech


@pytest.mark.parametrize("kind", FAMILIES)
def test_frames_are_those_of_transformers(kind, tmp_path):
    model = reference(kind)
    network = load_speech(save(model, tmp_path / "model"))
    inputs = waves()
    with torch.inference_mode():
        scaled = (inputs - inputs.mean(1, keepdim=True)) / torch.sqrt(
            inputs.var(1, correction=0, keepdim=True) + 1e-7
        )
        expected = model(scaled).last_hidden_state
        assert torch.allclose(network(inputs), expected, atol=2e-5)
        assert expected.shape == (2, (8000 - 400) // network.hop + 1, network.dim)
    assert len(network.blocks) == 2


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_pass_is_the_same_even_while_training(kind, tmp_path):
    model = reference(kind, layerdrop=0.9, hidden_dropout=0.5, attention_dropout=0.5)
    network = load_speech(save(model, tmp_path / "model")).train()
    calls = []
    for block in network.blocks:
        block.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        first, second = network(waves()), network(waves())
    assert torch.equal(first, second)
    assert len(calls) == 4


def test_a_model_with_a_head_gives_its_encoder(tmp_path):
    model = reference("hubert")
    network = load_speech(save(model, tmp_path / "model", prefix="hubert."))
    with torch.inference_mode():
        assert torch.equal(network(waves()), load_speech(save(model, tmp_path / "plain"))(waves()))


def test_whisper_reads_clips_of_any_length(tmp_path):
    import transformers

    model = whisper()
    network = load_speech(save(model, tmp_path / "model"))
    extract = transformers.WhisperFeatureExtractor(chunk_length=2)
    clip = waves(32_000, 1)
    features = extract(clip[0].numpy(), sampling_rate=16_000, return_tensors="pt").input_features
    assert torch.allclose(network.log_mel(clip), features, atol=1e-4)
    with torch.inference_mode():
        expected = model.model.encoder(features).last_hidden_state
        assert torch.allclose(network(clip), expected, atol=1e-4)
        assert network(clip[:, :16_000]).shape == (1, 50, 32)
    with pytest.raises(UsageError, match="longer than the 100 positions"):
        network(waves(48_000, 1))


def test_whisper_without_its_head_gives_the_same_encoder(tmp_path):
    """`WhisperModel` and the encoder alone are saved under other names than the whole model."""
    model = whisper()
    whole = load_speech(save(model, tmp_path / "whole"))
    clip = waves(16_000, 1)
    for name, part in (("body", model.model), ("encoder", model.model.encoder)):
        part.save_pretrained(tmp_path / name)
        with torch.inference_mode():
            assert torch.equal(load_speech(tmp_path / name)(clip), whole(clip))


def test_what_is_no_speech_model_is_refused(tmp_path):
    with pytest.raises(UsageError, match="pass --download"):
        load_speech("hf:facebook/hubert-base-ls960")
    folder = save(reference("hubert"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(UsageError, match="of type 'bert'; speech models are wav2vec2, hubert"):
        load_speech(folder)
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 1 << 14}))
    with pytest.raises(UsageError, match="ask for"):
        load_speech(folder)
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    assert len(load_speech(folder).blocks) == 1
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 40}))
    with pytest.raises(UsageError, match="of shape"):
        load_speech(folder)


def test_a_random_twin_has_the_same_shapes_and_other_weights(tmp_path):
    network = load_speech(save(reference("hubert"), tmp_path / "model"))
    twin, again = random_speech(network, seed=3), random_speech(network, seed=3)
    own, other = network.state_dict(), twin.state_dict()
    assert {name: one.shape for name, one in own.items()} == {
        name: one.shape for name, one in other.items()
    }
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in other.items())
    assert not np.allclose(
        own["model.encoder.layers.0.attention.q_proj.weight"],
        other["model.encoder.layers.0.attention.q_proj.weight"],
    )
