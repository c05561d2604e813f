"""Pictures of tokens: a tokenizer's reconstructions, for viewing."""

import numpy as np
import numpy.typing as npt

from seit.tokenizers.base import AudioInputs, Tokenizer
from seit.tokenizers.mel import mel_pictures
from seit.tokenizers.spectrograms import wave_levels


def decode_pictures(tokenizer: Tokenizer, tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """Decode ids (n, H, W) to pictures uint8 (n, height, width, 3): images, or spectrograms.

    Raises:
        UsageError: the tokenizer cannot decode, or these are not ids of its codebook.
    """
    decoded = tokenizer.decode(tokens)
    if tokenizer.modality == "audio":
        if decoded.ndim == 2:
            assert isinstance(tokenizer.inputs, AudioInputs)
            decoded = wave_levels(decoded, tokenizer.inputs.sample_rate)
        return mel_pictures(decoded)
    pictures: npt.NDArray[np.uint8] = decoded.cpu().numpy()
    return pictures
