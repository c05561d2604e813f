"""Identity of training data: checked before a run resumes."""

from dataclasses import dataclass
from typing import Any

from seit.shards import Store


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


def identity_of(store: Store | Inputs) -> dict[str, Any]:
    """Return seal or fingerprint of the data, and its class names."""
    if isinstance(store, Inputs):
        return {"store": store.fingerprint, "classes": list(store.classes)}
    return {"store": store.card.seal, "classes": list(store.classes)}


def seal_of(store: Store | Inputs) -> str:
    """Return the seal of a store, or the fingerprint of other inputs."""
    seal: str = identity_of(store)["store"]
    return seal
