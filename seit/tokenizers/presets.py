"""Tokenizers that a job can name: fitted on its corpus, or ready to use."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from seit.modality import Modality
from seit.tokenizers.base import AudioInputs, ImageInputs, Inputs, Tokenizer
from seit.tokenizers.fitted.dmel import DMelTokenizer
from seit.tokenizers.fitted.mel_vq import MelTokenizer, ResidualMelTokenizer
from seit.tokenizers.fitted.patch import PatchTokenizer, ResidualPatchTokenizer
from seit.tokenizers.mel import MelConfig

MEL_CONFIGS: Mapping[str, MelConfig] = {
    "1s": MelConfig(window=16_000, hop=125, taper=512, frames=128, patch=(4, 4)),
    "5s": MelConfig(window=80_000, hop=160, taper=640, frames=512, patch=(4, 16)),
    "10s": MelConfig(window=160_000, hop=320, taper=1024, frames=512, patch=(4, 16)),
}
"""Spectrograms by window length; each gives a grid of 32 × 32. 500 frames are padded to 512."""

RESIDUAL_LEVELS = 2
DEFAULT_IMAGES = PatchTokenizer.name
DEFAULT_AUDIO = f"{MelTokenizer.name}-5s"
"""Presets that messages suggest for images and for audio."""


@dataclass(frozen=True)
class Preset:
    """Tokenizer of a name.

    Attributes:
        kind: class of the tokenizer.
        mel: shape of its spectrograms; None for images.
    """

    kind: type[Tokenizer]
    mel: MelConfig | None = None

    @property
    def modality(self) -> Modality:
        """Modality of its inputs."""
        return self.kind.modality

    def inputs(self, *, size: int) -> Inputs:
        """Return the kind and shape of one input; ``size`` is the side of images, in pixels."""
        if self.mel is None:
            return ImageInputs(size)
        return AudioInputs(self.mel.sample_rate, self.mel.window)

    def ready(self) -> Tokenizer | None:
        """Return the tokenizer if it needs no fit, else None."""
        if self.mel is None or self.kind is not DMelTokenizer:
            return None
        return DMelTokenizer(self.mel)

    def fit(
        self, inputs: Tensor, *, num_codes: int, seed: int, levels: int | None = None
    ) -> Tokenizer:
        """Fit the tokenizer on inputs (B, …), with `RESIDUAL_LEVELS` if it is residual.

        Raises:
            UsageError: there are too few for so many codes, or it has no such levels.
        """
        kind = self.kind
        assert issubclass(kind, PatchTokenizer | MelTokenizer), "the others are ready"
        levels = levels or (RESIDUAL_LEVELS if kind.is_residual else 1)
        if issubclass(kind, PatchTokenizer):
            return kind.fit(inputs, num_codes=num_codes, levels=levels, seed=seed)
        assert self.mel is not None
        return kind.fit(inputs, self.mel, num_codes=num_codes, levels=levels, seed=seed)


def _presets() -> dict[str, Preset]:
    pictures = (PatchTokenizer, ResidualPatchTokenizer)
    sounds = (MelTokenizer, ResidualMelTokenizer, DMelTokenizer)
    presets = {kind.name: Preset(kind) for kind in pictures}
    for length, mel in MEL_CONFIGS.items():
        presets |= {f"{kind.name}-{length}": Preset(kind, mel) for kind in sounds}
    return presets


PRESETS: Mapping[str, Preset] = _presets()
"""Presets by name; `PRESET_SUMMARIES` describes them."""
