"""A speech model as one network: waveforms → frames.

Layer drop, masking and dropout are off, so that a forward pass is the same in every mode.

Legend: B batch, T samples, M mel bands, F frames, D features.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from seit.errors import UsageError
from seit.tokenizers.mel import mel_filters
from seit.tokenizers.speech.layouts import SAMPLE_RATE, Layout
from seit.tokenizers.speech.stem_cache import StemCache

STILL: Mapping[str, float | bool] = {
    "layerdrop": 0.0,
    "encoder_layerdrop": 0.0,
    "apply_spec_augment": False,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
    "dropout": 0.0,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "final_dropout": 0.0,
}
"""Settings that turn layer drop, masking and dropout off."""
LEAST_SAMPLES = 400
"""Samples of the shortest clip: one frame."""
_FFT, _HOP = 400, 160
_VARIANCE_FLOOR = 1e-7


class SpeechNetwork(nn.Module):
    """A speech model of transformers over waveforms.

    Args:
        model: the network of transformers; of Whisper its encoder.
        layout: its family's layout.
        normalize: whether each waveform is scaled to mean 0 and variance 1, as in training.

    Attributes:
        dim: D.
        hop: samples from one frame to the next.
        stem_cache: outputs of the convolutions, which are frozen then; None computes them each
            time.
    """

    stem_cache: StemCache | None = None

    def __init__(self, model: nn.Module, layout: Layout, *, normalize: bool) -> None:
        super().__init__()
        config: Any = model.config
        self.model = model
        self.layout = layout
        self.normalize = normalize
        self.dim = int(config.hidden_size)
        self.hop = int(np.prod(config.conv_stride)) if layout.takes_waveforms else 2 * _HOP
        if not layout.takes_waveforms:
            filters = mel_filters(SAMPLE_RATE, fft=_FFT, bands=int(config.num_mel_bins))
            self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)

    @property
    def blocks(self) -> nn.ModuleList:
        """Transformer blocks."""
        found = self.model.get_submodule(self.layout.blocks)
        assert isinstance(found, nn.ModuleList)
        return found

    def keep_blocks(self, count: int) -> None:
        """Drop the blocks after the first ``count``; a norm after the blocks stays.

        Raises:
            UsageError: there are not so many.
        """
        if not 1 <= count <= len(self.blocks):
            raise UsageError(
                f"the speech model has no block {count - 1}; its blocks are layers.0 to "
                f"layers.{len(self.blocks) - 1}"
            )
        del self.blocks[count:]

    @override
    def forward(self, waves: Tensor) -> Tensor:
        """Return frames (B, F, D) of waveforms float32 (B, T) at 16 kHz, −1 to 1.

        Waveforms of a batch have the same length: padding changes the results of networks with
        group norms, so none is added.

        Raises:
            UsageError: a waveform is too short, or longer than the network's positions.
        """
        if waves.shape[1] < LEAST_SAMPLES:
            raise UsageError(
                f"a clip of {waves.shape[1]} samples is shorter than a frame of {LEAST_SAMPLES}; "
                "leave it out"
            )
        if not self.layout.takes_waveforms:
            return self._encode_convolved(self._stem(waves, self._convolve_mel))
        if self.normalize:
            centered = waves - waves.mean(1, keepdim=True)
            waves = centered / (centered.square().mean(1, keepdim=True) + _VARIANCE_FLOOR).sqrt()
        model: Any = self.model
        if self.stem_cache is None:
            frames: Tensor = model(waves).last_hidden_state
            return frames
        convolve = model.feature_extractor
        model.feature_extractor = _Given(self._stem(waves, convolve))
        try:
            frames = model(waves).last_hidden_state
        finally:
            model.feature_extractor = convolve
        return frames

    def _stem(self, waves: Tensor, stem: Callable[[Tensor], Tensor]) -> Tensor:
        return stem(waves) if self.stem_cache is None else self.stem_cache.outputs(waves, stem)

    def log_mel(self, waves: Tensor) -> Tensor:
        """Return Whisper's log-mel spectrograms (B, M, T / 160) (arXiv 2212.04356, section 2.2)."""
        window = torch.hann_window(_FFT, device=waves.device)
        spectra = torch.stft(waves, _FFT, _HOP, window=window, return_complex=True)
        power = spectra[..., :-1].abs().square()
        filters: Any = self.filters
        bands = (filters @ power).clamp(min=1e-10).log10()
        floor = bands.amax((1, 2), keepdim=True) - 8.0
        return (torch.maximum(bands, floor) + 4.0) / 4.0

    def _convolve_mel(self, waves: Tensor) -> Tensor:
        """Return the convolved spectrograms (B, F, D) of waveforms (B, T)."""
        model: Any = self.model
        first = functional.gelu(model.conv1(self.log_mel(waves)))
        convolved: Tensor = functional.gelu(model.conv2(first)).mT
        return convolved

    def _encode_convolved(self, hidden: Tensor) -> Tensor:
        """Return the frames of a sound of any length, without padding it to 30 s."""
        model: Any = self.model
        length, most = hidden.shape[1], model.embed_positions.num_embeddings
        if length > most:
            raise UsageError(
                f"a clip of {length} frames is longer than the {most} positions of the network; "
                "cut it"
            )
        hidden = hidden + model.embed_positions.weight[:length]
        for block in model.layers:
            hidden = _first(block(hidden, None))
        frames: Tensor = model.layer_norm(hidden)
        return frames


class _Given(nn.Module):
    """Stand-in of convolutions whose output is known."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self._output = output

    @override
    def forward(self, waves: Tensor) -> Tensor:
        """Return the known output; the waveforms are not used."""
        del waves
        return self._output


def _first(output: Any) -> Tensor:
    """Return the features of a block, which some versions wrap in a tuple."""
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found
