"""Speech models: loading from folders, and frames equal to those of transformers."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from seit.errors import UsageError
from seit.models import load_speech, random_speech

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
FAMILIES = {
    "wav2vec2": "Wav2Vec2",
    "hubert": "Hubert",
    "wavlm": "WavLM",
    "unispeech-sat": "UniSpeechSat",
}


def reference(kind, **changes):
    """Return a small network of transformers with random weights."""
    import transformers

    torch.manual_seed(0)
    name = FAMILIES[kind]
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **changes})
    return getattr(transformers, f"{name}Model")(config).eval()


def whisper():
    import transformers

    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        d_model=32,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        vocab_size=64,
        max_source_positions=100,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    return transformers.WhisperForConditionalGeneration(config).eval()


def save(model, folder, *, prefix=""):
    folder.mkdir()
    weights = {f"{prefix}{name}": one.clone() for name, one in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(model.config.to_dict()))
    return folder


def waves(samples=8000, count=2):
    return 0.1 * torch.randn(count, samples, generator=torch.Generator().manual_seed(1))


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
    model = reference(kind, layerdrop=0.9, hidden_dropout=0.0, attention_dropout=0.0)
    network = load_speech(save(model, tmp_path / "model")).train()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
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
