"""Images and audio → grids: the tokenizers and their files."""

from seit.tokenizers.base import (
    AudioInputs,
    AudioTokenizer,
    ImageInputs,
    ImageTokenizer,
    Inputs,
    Tokenizer,
)
from seit.tokenizers.dmel import DMelTokenizer
from seit.tokenizers.files import (
    TOKENIZERS,
    codebook_bytes,
    has_weights,
    load_tokenizer,
    save_tokenizer,
    stored_tokenizer_bytes,
    tokenizer_bytes,
)
from seit.tokenizers.imported import ImportedTokenizer
from seit.tokenizers.mel import MelConfig, MelFrontEnd, mel_pictures
from seit.tokenizers.melquality import AudioQuality, measure_audio_quality
from seit.tokenizers.melvq import MelTokenizer, ResidualMelTokenizer
from seit.tokenizers.patch import PatchTokenizer
from seit.tokenizers.presets import PRESETS, Preset
from seit.tokenizers.quality import Quality, measure_quality

__all__ = [
    "PRESETS",
    "TOKENIZERS",
    "AudioInputs",
    "AudioQuality",
    "AudioTokenizer",
    "DMelTokenizer",
    "ImageInputs",
    "ImageTokenizer",
    "ImportedTokenizer",
    "Inputs",
    "MelConfig",
    "MelFrontEnd",
    "MelTokenizer",
    "PatchTokenizer",
    "Preset",
    "Quality",
    "ResidualMelTokenizer",
    "Tokenizer",
    "codebook_bytes",
    "has_weights",
    "load_tokenizer",
    "measure_audio_quality",
    "measure_quality",
    "mel_pictures",
    "save_tokenizer",
    "stored_tokenizer_bytes",
    "tokenizer_bytes",
]
