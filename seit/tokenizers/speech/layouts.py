"""Families of speech models, and where each keeps its parts."""

from collections.abc import Mapping
from dataclasses import dataclass

SAMPLE_RATE = 16_000
"""Samples per second that all families take."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Parts of a family of speech models.

    Attributes:
        class_prefix: name of its classes in transformers, without Config and Model.
        prefixes: prefixes of the network's names in checkpoints of larger models: those with a
            head, and of Whisper also the one without.
        encoder: path of the module whose ``layers`` are the blocks; empty for the network itself.
        stem: path of the last module before the transformer; None if nothing is to be read there.
        takes_waveforms: whether the network takes waveforms; others take log-mel spectrograms.
        attention: path of the attention in a block, which holds ``q_proj`` to ``out_proj``.
        hidden, last: paths in a block of the first and the last layer of its feed-forward network.
        multiplies_weights: whether attention multiplies by the weights of its layers instead of
            calling them, so that a hook on such a layer has no effect.
    """

    class_prefix: str
    prefixes: tuple[str, ...]
    encoder: str = "encoder"
    stem: str | None = "feature_projection"
    takes_waveforms: bool = True
    attention: str = "attention"
    hidden: str = "feed_forward.intermediate_dense"
    last: str = "feed_forward.output_dense"
    multiplies_weights: bool = False

    @property
    def blocks(self) -> str:
        """Path of the list of blocks."""
        return f"{self.encoder}.layers" if self.encoder else "layers"


LAYOUTS: Mapping[str, Layout] = {
    "wav2vec2": Layout(class_prefix="Wav2Vec2", prefixes=("wav2vec2.",)),
    "hubert": Layout(class_prefix="Hubert", prefixes=("hubert.",)),
    "wavlm": Layout(class_prefix="WavLM", prefixes=("wavlm.",), multiplies_weights=True),
    "data2vec-audio": Layout(class_prefix="Data2VecAudio", prefixes=("data2vec_audio.",)),
    "unispeech-sat": Layout(class_prefix="UniSpeechSat", prefixes=("unispeech_sat.",)),
    "whisper": Layout(
        class_prefix="Whisper",
        prefixes=("model.encoder.", "encoder."),
        encoder="",
        stem=None,
        takes_waveforms=False,
        attention="self_attn",
        hidden="fc1",
        last="fc2",
    ),
}
"""Families by the ``model_type`` of their `config.json`."""
