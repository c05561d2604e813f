"""Tiny speech models of transformers with random weights, and sounds for them."""

import json
from pathlib import Path

import numpy as np
import soundfile
import torch
from safetensors.torch import save_file

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
    "data2vec-audio": "Data2VecAudio",
}


def reference(kind, **changes):
    """Return a small network of transformers with random weights."""
    import transformers

    torch.manual_seed(0)
    name = FAMILIES[kind]
    sizes = SIZES | ({"num_conv_pos_embeddings": 2} if kind == "data2vec-audio" else {})
    config = getattr(transformers, f"{name}Config")(**{**sizes, **changes})
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
    """Write a model's folder as transformers does."""
    folder.mkdir(parents=True)
    weights = {f"{prefix}{name}": one.clone() for name, one in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(model.config.to_dict()))
    return folder


def waves(samples=8000, count=2):
    """Return noise float32 (count, samples)."""
    return 0.1 * torch.randn(count, samples, generator=torch.Generator().manual_seed(1))


def write_tones(folder: Path, *, clips=(8, 4), rate=16_000) -> Path:
    """Write a corpus of two classes, low and high tones of .1 to .2 s, with train and val."""
    draws = np.random.default_rng(0)
    for split, count in zip(("train", "val"), clips, strict=True):
        for number in range(count):
            for name, pitch in (("low", 300), ("high", 2_000)):
                length = 1_600 + 800 * (number % 3)
                times = np.arange(length) / rate
                tone = 0.3 * np.sin(2 * np.pi * pitch * (1 + 0.1 * draws.random()) * times)
                path = folder / split / name / f"{number}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, tone + 0.02 * draws.standard_normal(length), rate)
    return folder
