"""Record of the files behind a store: `inputs.bin`.

It holds a sorted list with 6 bytes per file, including unreadable ones: a hash of its key, size,
split, class and metadata. A later job can detect changed files, and no name is stored.
"""

import hashlib
import json
import math

from seit.errors import DamagedError
from seit.ingest.config import TokenizeConfig
from seit.ingest.sources import Corpus, Instance
from seit.shards import Card, Store, split_key
from seit.stores import skipped_lines

INPUTS_NAME = "inputs.bin"
_DIGEST_BYTES = 6


def digest_input(instance: Instance, classes: tuple[str, ...]) -> bytes:
    """Return the 6-byte digest of a file; a change goes unnoticed once in 2^48 per known file."""
    class_name = classes[instance.label] if instance.label >= 0 else None
    metadata = list(instance.metadata)
    fields = [instance.key, instance.num_bytes, instance.split, class_name, metadata]
    text = json.dumps(fields).encode()
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES, person=b"seit-input").digest()


def list_inputs(corpus: Corpus) -> bytes:
    """Return the contents of `inputs.bin` for a corpus."""
    return b"".join(sorted(digest_input(entry, corpus.classes) for entry in corpus.instances))


def read_inputs(store: Store) -> frozenset[bytes] | None:
    """Return the digests of a store's files; None for a store of an earlier version.

    Raises:
        DamagedError: the file is damaged.
    """
    if all(record.file != INPUTS_NAME for record in store.card.files):
        return None
    data = store.read_listed(INPUTS_NAME)
    if len(data) % _DIGEST_BYTES:
        raise DamagedError(
            f"{store.folder.locate(INPUTS_NAME)} has {len(data):,} bytes, which is not a multiple "
            f"of {_DIGEST_BYTES}; restore the store from a copy"
        )
    return frozenset(
        data[start : start + _DIGEST_BYTES] for start in range(0, len(data), _DIGEST_BYTES)
    )


def kept_splits(store: Store) -> dict[str, str]:
    """Return key → split of the files behind a store, including unreadable ones."""
    files, own = {}, {}
    for name, split in store.items():
        for key in split.keys:
            files[split_key(key, store.card.tokenizer.modality)[0]] = own[key] = name
    # A file may be named like a view of another one, which is in a split of its own.
    return files | own | {entry["key"]: entry["split"] for entry, _ in skipped_lines(store)}


def recorded(card: Card, name: str) -> float:
    """Return a number of the settings of a store's job; the default if its card records none."""
    value = card.job.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    default: float = getattr(TokenizeConfig, name)
    return default
