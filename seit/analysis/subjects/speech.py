"""A speech model as a subject, on the waveforms of files.

Each clip is one forward pass, since padding changes the results of networks with group norms.

Legend: T samples of a waveform, F frames, D features.
"""

from collections.abc import Iterator, Sequence

import torch
from typing_extensions import override

from seit.analysis.subjects.base import Clip, Place, Subject
from seit.fingerprints import hash_of
from seit.models import captured
from seit.stream import Sound
from seit.tokenizers import SpeechNetwork, random_speech

STEM = "stem"
"""Input of the first block."""


class SpeechSubject(Subject):
    """A speech model of transformers.

    Args:
        network: the network.
        sounds: clips, decoded.
        classes: class names of their labels.
        name: name in tables.
        device: device of the network.
    """

    def __init__(
        self,
        network: SpeechNetwork,
        sounds: Sequence[Sound],
        *,
        classes: tuple[str, ...],
        name: str,
        device: torch.device,
    ) -> None:
        self.network, self.device = network.to(device).eval(), device
        self.sounds, self.classes, self.name = sounds, classes, name
        blocks = f"model.{network.layout.blocks}"
        self._inputs = {STEM: f"{blocks}.0"}
        self._outputs = {
            f"layers.{index}": f"{blocks}.{index}" for index in range(len(network.blocks))
        }
        self.layers = (*self._inputs, *self._outputs)

    @property
    @override
    def places(self) -> Sequence[Place]:
        return [
            Place(sound.key, sound.file, sound.label, sound.start, sound.seconds)
            for sound in self.sounds
        ]

    @override
    def fingerprint(self) -> str:
        return hash_of(sound.digest for sound in self.sounds)

    @override
    def random_twin(self, seed: int) -> "SpeechSubject":
        return SpeechSubject(
            random_speech(self.network, seed=seed),
            self.sounds,
            classes=self.classes,
            name=f"{self.name} (random weights)",
            device=self.device,
        )

    @override
    def clips(self, rows: Sequence[int] | None = None) -> Iterator[Clip]:
        for row in range(len(self.sounds)) if rows is None else rows:
            sound = self.sounds[row]
            wave = torch.from_numpy(sound.waveform).to(self.device)[None]
            with (
                torch.inference_mode(),
                captured(self.network, self._outputs, inputs=self._inputs) as found,
            ):
                self.network(wave)
            yield Clip(
                row=row,
                values={name: found[name][0].float().cpu().numpy() for name in self.layers},
                seconds=sound.seconds,
            )
