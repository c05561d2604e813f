"""Finished layers and sums of an analysis, from which an interrupted one resumes."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from seit.analysis.subjects.base import Subject
from seit.documents import as_record, read_json
from seit.errors import UsageError
from seit.files import explained_writes, write_atomically
from seit.tensors import array_bytes, read_arrays

UNFINISHED_NAME, IDENTITY_NAME = "unfinished", "identity.json"
_SUMS_NAME = "sums.safetensors"
_MAX_BYTES = 1 << 20
_NETWORK = "network"
T = TypeVar("T")


class Journal:
    """Scores of finished layers, in a folder within that of the result; None keeps nothing.

    Args:
        folder: folder of the scores.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @classmethod
    def open(cls, out: Path | None, identity: Mapping[str, Any], *, resume: bool) -> "Journal":
        """Begin an analysis, or continue an interrupted one.

        Args:
            out: folder of the result; None keeps nothing.
            identity: what the scores depend on.
            resume: whether to continue what is there.

        Raises:
            UsageError: another analysis was interrupted there, or the folder cannot be written.
            DamagedError: a file is not as written.
        """
        if out is None:
            return cls(None)
        folder = out / UNFINISHED_NAME
        wanted = json.loads(json.dumps(identity))
        if resume and (folder / IDENTITY_NAME).is_file():
            found = read_json(folder / IDENTITY_NAME, dict, max_bytes=_MAX_BYTES)
            unlike = [key for key in wanted if found.get(key) != wanted[key]]
            if unlike:
                raise UsageError(
                    f"the unfinished analysis at {out} differs in {', '.join(unlike)}; pass the "
                    "arguments that it was started with, or choose a new --out folder"
                )
            return cls(folder)
        with explained_writes(out):
            folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / IDENTITY_NAME, json.dumps(wanted).encode())
        return cls(folder)

    def score(self, network: int, layer: str, kind: type[T]) -> T | None:
        """Return the score of a layer of a network, by its number; None if it is not finished."""
        path = self._path(network, layer, "json")
        if path is None or not path.is_file():
            return None
        return as_record(read_json(path, dict, max_bytes=_MAX_BYTES), kind, origin=str(path))

    def array(self, network: int, layer: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the array that was kept with a score."""
        path = self._path(network, layer, "safetensors")
        assert path is not None, "of a finished layer"
        return read_arrays(path)[_NETWORK]

    def keep(
        self,
        network: int,
        layer: str,
        score: Any,
        array: np.ndarray[Any, np.dtype[np.float64]] | None = None,
    ) -> None:
        """Keep the score of a layer, a dataclass, with an array if one belongs to it."""
        path, arrays = (self._path(network, layer, kind) for kind in ("json", "safetensors"))
        if path is None or arrays is None:
            return
        if array is not None:
            write_atomically(arrays, array_bytes({_NETWORK: array}))
        write_atomically(path, json.dumps(asdict(score)).encode())

    def sums(self) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]] | None:
        """Return the sums of an interrupted pass; None if there are none."""
        path = None if self._folder is None else self._folder / _SUMS_NAME
        return read_arrays(path) if path is not None and path.is_file() else None

    def keep_sums(self, arrays: Mapping[str, np.ndarray[Any, np.dtype[np.float64]]]) -> None:
        """Keep the sums of a pass so far, in place of earlier ones."""
        if self._folder is not None:
            write_atomically(self._folder / _SUMS_NAME, array_bytes(dict(arrays)))

    def close(self) -> None:
        """Remove what was kept, once the result is written."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, network: int, layer: str, suffix: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{network}-{layer}.{suffix}"


def identity_of(networks: Sequence[Subject], **settings: Any) -> dict[str, Any]:
    """Return what the scores of networks depend on, with settings by name.

    Weights and data are distinguished by the activations of each network's first instance.
    """
    places = networks[0].places
    data = hashlib.sha256(repr([(one.key, one.label, one.start) for one in places]).encode())
    weights = []
    for network in networks:
        seen = hashlib.sha256()
        for clip in network.clips([0]):
            for layer in network.layers:
                seen.update(np.ascontiguousarray(clip.values[layer]).tobytes())
        weights.append(seen.hexdigest())
    return {
        "networks": [network.name for network in networks],
        "layers": [list(network.layers) for network in networks],
        "data": data.hexdigest(),
        "weights": weights,
        **settings,
    }
