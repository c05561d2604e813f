"""Long sounds whose responses are known: those of the third layer, in blood flow."""

import numpy as np
from support.planted import RATE, Planted

from seit.analysis.brain.responses import convolved
from seit.analysis.subjects.base import Clip, Place

TR, SECONDS, RUNS = 1.0, 120, ("a/one", "a/two", "b")


class Stories(Planted):
    """Three sounds of two minutes, whose third layer alone is slow enough to be seen."""

    def __init__(self, seed=0, *, known=True):
        super().__init__(len(RUNS), seed, known=known)
        random = np.random.default_rng(seed)
        self.values = random.normal(size=(4, len(RUNS), SECONDS * RATE, 16)).astype(np.float32)

    @property
    def places(self):
        return [Place(f"{run}.wav", f"{run}.wav", -1, 0.0, SECONDS) for run in RUNS]

    def clips(self, rows=None):
        for row in range(len(RUNS)) if rows is None else rows:
            values = dict(zip(self.layers, self.values[:, row], strict=True))
            yield Clip(row=row, values=values, seconds=SECONDS)

    def random_twin(self, seed):
        return Stories(seed + 100, known=False)


def write_responses(folder, *, people=("p", "q", "r"), noise=0.3):
    """Write responses of people to the third layer, and return their folder."""
    random = np.random.default_rng(1)
    weights = random.normal(size=(16, 6))
    for person in people:
        for row, run in enumerate(RUNS):
            seen = convolved(Stories().values[2, row], rate=RATE, tr=TR, num_volumes=SECONDS)
            signal = seen @ weights
            path = folder / person / f"{run}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, signal + noise * signal.std() * random.normal(size=signal.shape))
    return folder
