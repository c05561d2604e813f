"""A speech model as a subject, on the waveforms of files.

Each clip is one forward pass, since padding changes the results of networks with group norms.

Legend: T samples of a waveform, F frames, D features.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import override

from seit.analysis.subjects.base import Clip, Place, Subject
from seit.analysis.subjects.capture import captured
from seit.models import SAMPLE_RATE, SpeechNetwork, random_speech

MEL, STEM = "mel", "stem"
"""Layers before the blocks: the log-mel baseline, and the input of the first block."""


@dataclass(frozen=True)
class Sound:
    """A clip to read.

    Attributes:
        key: its key.
        label: index of its class, −1 for none.
        waveform: float32 (T,) at 16 kHz, −1 to 1.
    """

    key: str
    label: int
    waveform: npt.NDArray[np.float32]


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
            Place(sound.key, sound.key, sound.label, 0.0, len(sound.waveform) / SAMPLE_RATE)
            for sound in self.sounds
        ]

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
                seconds=len(sound.waveform) / SAMPLE_RATE,
            )
