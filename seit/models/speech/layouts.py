"""Families of speech models, and where each keeps its parts."""

from collections.abc import Mapping
from dataclasses import dataclass

SAMPLE_RATE = 16_000
"""Samples per second that all families take."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Parts of a family of speech models.

    Attributes:
        library_name: name of its classes in transformers, without Config and Model.
        prefix: prefix of the network's names in checkpoints of models with a head.
        encoder: path of the module whose ``layers`` are the blocks; empty for the network itself.
        stem: path of the last module before the transformer; None if nothing is to be read there.
        takes_waveforms: whether the network takes waveforms; others take log-mel spectrograms.
    """

    library_name: str
    prefix: str
    encoder: str = "encoder"
    stem: str | None = "feature_projection"
    takes_waveforms: bool = True

    @property
    def blocks(self) -> str:
        """Path of the list of blocks."""
        return f"{self.encoder}.layers" if self.encoder else "layers"


LAYOUTS: Mapping[str, Layout] = {
    "wav2vec2": Layout(library_name="Wav2Vec2", prefix="wav2vec2."),
    "hubert": Layout(library_name="Hubert", prefix="hubert."),
    "wavlm": Layout(library_name="WavLM", prefix="wavlm."),
    "data2vec-audio": Layout(library_name="Data2VecAudio", prefix="data2vec_audio."),
    "unispeech-sat": Layout(library_name="UniSpeechSat", prefix="unispeech_sat."),
    "whisper": Layout(
        library_name="Whisper",
        prefix="model.encoder.",
        encoder="",
        stem=None,
        takes_waveforms=False,
    ),
}
"""Families by the ``model_type`` of their `config.json`."""
