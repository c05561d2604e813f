"""A subject whose layers are known: phones can be read from the third on."""

import numpy as np

from seit.analysis.layers.alignments import Span
from seit.analysis.subjects.base import Clip, Place, Subject

RATE, SECONDS = 20, 2.0
PHONES = tuple("abcdef")


class Planted(Subject):
    """Layers of 16 features at 20 Hz: noise, noise, phones, phones in more noise."""

    name = "planted"
    layers = ("layers.0", "layers.1", "layers.2", "layers.3")
    classes = ("x", "y")

    def __init__(self, num_clips=60, seed=0, *, known=True):
        random = np.random.default_rng(seed)
        count = int(SECONDS * RATE)
        length = RATE // 4
        self.types = random.integers(len(PHONES), size=(num_clips, count // length))
        codes = np.random.default_rng(1).normal(size=(len(PHONES), 16))
        signal = np.repeat(codes[self.types], length, axis=1)
        noise = random.normal(size=(4, num_clips, count, 16))
        strength = (0.0, 0.0, 3.0, 0.7) if known else (0.0,) * 4
        self.values = np.stack(
            [np.tanh(share * signal + one) for share, one in zip(strength, noise, strict=True)]
        ).astype(np.float32)

    @property
    def places(self):
        return [
            Place(f"{row}.wav", f"{row}.wav", row % 2, 0.0, SECONDS)
            for row in range(len(self.types))
        ]

    def clips(self, rows=None):
        for row in range(len(self.types)) if rows is None else rows:
            values = dict(zip(self.layers, self.values[:, row], strict=True))
            yield Clip(row=row, values=values, seconds=SECONDS)

    def random_twin(self, seed):
        return Planted(len(self.types), seed, known=False)

    @property
    def alignments(self):
        step = 0.25
        return {
            f"{row}.wav": [
                Span(index * step, (index + 1) * step, PHONES[number])
                for index, number in enumerate(types)
            ]
            for row, types in enumerate(self.types.tolist())
        }
