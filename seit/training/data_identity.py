"""Identity of training data: checked before a run resumes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.shards import Store
from seit.stream import files_of
from seit.training.config import LoopConfig

_FILES_REVISION = 5
"""The first revision whose `data.fraction` is a share of files, not of their windows or views."""


@dataclass(frozen=True)
class Inputs:
    """Training files other than a store, as used to train a tokenizer.

    Attributes:
        folder: description of the files, for messages.
        fingerprint: fingerprint of all of them.
        classes: class names of their labels.
    """

    folder: str
    fingerprint: str
    classes: tuple[str, ...]

    def files_of(self, split: str) -> npt.NDArray[np.int64]:
        """Return numbers int64 (N,) of a split's samples, equal for those of a file.

        Empty for files that no share is taken of, as in the training of a tokenizer.
        """
        del split
        return np.empty(0, np.int64)


def identity_of(store: Store | Inputs) -> dict[str, Any]:
    """Return seal or fingerprint of the data, and its class names."""
    if isinstance(store, Inputs):
        return {"store": store.fingerprint, "classes": list(store.classes)}
    return {"store": store.card.seal, "classes": list(store.classes)}


def seal_of(store: Store | Inputs) -> str:
    """Return the seal of a store, or the fingerprint of other inputs."""
    seal: str = identity_of(store)["store"]
    return seal


def reinterpreted_data(store: Store | Inputs, config: LoopConfig, revision: int) -> list[str]:
    """Return the settings of data whose meaning for the store changed after ``revision``."""
    data = config.data
    if revision >= _FILES_REVISION or data.fraction == 1:
        return []
    name = data.train_split
    files = files_of(store[name]) if isinstance(store, Store) else store.files_of(name)
    return ["data.fraction"] if len(np.unique(files)) < len(files) else []
