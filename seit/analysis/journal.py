"""Finished layers and sums of an analysis, from which an interrupted one resumes."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from seit.analysis.subjects.base import Subject
from seit.documents import as_record, read_json
from seit.errors import UsageError
from seit.files import explained_writes, write_atomically
from seit.store_folders import refuse_store
from seit.tensors import array_bytes, read_arrays, write_arrays
from seit.training import Stop, listen

UNFINISHED_NAME, IDENTITY_NAME = "unfinished", "identity.json"
LAYERS_NAME, CKA_NAME, BRAIN_NAME = "layers.json", "cka.json", "brain.json"
"""Results of analyses, in the folders of --out."""
_MAX_BYTES = 1 << 20
_MAX_RESULT_BYTES = 1 << 26
_SAVE_SECONDS = 60.0
_PAUSE = 20
"""Least time between two writings of sums, as a multiple of the time that one takes."""
_NETWORK = "network"
_REVISION = 3
"""Raised whenever an analysis computes other figures from the same data. 2: chance of targets that
are rearranged over whole folds. 3: means of `cka` in double precision."""
T = TypeVar("T")


Arrays = Mapping[str, npt.NDArray[Any]]


class Sums:
    """Sums of a pass over clips, kept every minute and when it is interrupted.

    Args:
        path: file of the sums; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._next = time.monotonic() + _SAVE_SECONDS

    def read(self) -> dict[str, npt.NDArray[Any]] | None:
        """Return the sums of an interrupted pass; None if there are none."""
        found = self._path is not None and self._path.is_file()
        return read_arrays(self._path) if found and self._path is not None else None

    @contextmanager
    def keeping(self, clips: Iterable[T], arrays: Callable[[], Arrays]) -> Iterator[Iterator[T]]:
        """Yield clips to add, and keep the sums after one when that is due.

        At Ctrl-C or SIGTERM the clip at hand is added, and the pass ends with `KeyboardInterrupt`.

        Args:
            clips: the clips of a pass.
            arrays: returns all sums by name, with those of all clips before the one at hand.
        """
        with listen() as stop:
            yield self._each(clips, arrays, stop)

    def _each(self, clips: Iterable[T], arrays: Callable[[], Arrays], stop: Stop) -> Iterator[T]:
        for clip in clips:
            yield clip
            if stop.requested or time.monotonic() > self._next:
                self._write(arrays)
            if stop.requested:
                raise KeyboardInterrupt

    def _write(self, arrays: Callable[[], Arrays]) -> None:
        if self._path is not None:
            began = time.monotonic()
            write_arrays(self._path, arrays())
            ended = time.monotonic()
            self._next = ended + max(_SAVE_SECONDS, _PAUSE * (ended - began))

    def drop(self) -> None:
        """Remove the sums, once what follows from them is kept."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


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
            UsageError: another analysis was interrupted there, or the folder cannot be written or
                lies in a store.
            DamagedError: a file is not as written.
        """
        if out is None:
            return cls(None)
        refuse_store(out)
        folder = out / UNFINISHED_NAME
        if resume and (folder / IDENTITY_NAME).is_file():
            unlike = _differences(folder / IDENTITY_NAME, identity)
            if unlike:
                raise UsageError(
                    f"the unfinished analysis at {out} differs in {', '.join(unlike)}; pass the "
                    "arguments that it was started with, or choose a new --out folder"
                )
            return cls(folder)
        with explained_writes(out):
            folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / IDENTITY_NAME, json.dumps(identity).encode())
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

    def sums(self, name: str) -> Sums:
        """Return the sums of a pass, by a name."""
        return Sums(None if self._folder is None else self._folder / f"{name}.safetensors")

    def close(self) -> None:
        """Remove what was kept but the identity, once the result is written."""
        if self._folder is not None:
            (self._folder / IDENTITY_NAME).replace(self._folder.parent / IDENTITY_NAME)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, network: int, layer: str, suffix: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{network}-{layer}.{suffix}"


def finished_result(
    out: Path | None, name: str, identity: Mapping[str, Any], kind: type[T], *, resume: bool
) -> T | None:
    """Return the result of a finished analysis to resume; None if it is not finished.

    Args:
        out: its folder.
        name: name of the result's file.
        identity: what the scores would depend on.
        kind: dataclass of the result, without its folder.
        resume: whether a result that is there is reported.

    Raises:
        UsageError: it is the result of another analysis.
        DamagedError: it is not as written.
    """
    path = None if out is None else out / name
    if path is None or not resume or not path.is_file():
        return None
    if (path.parent / UNFINISHED_NAME / IDENTITY_NAME).is_file():
        return None  # its report may be missing
    kept = path.parent / IDENTITY_NAME
    if not kept.is_file():
        raise UsageError(
            f"{out} already exists, and lacks the {IDENTITY_NAME} that says what it was measured "
            "on; choose a new --out folder"
        )
    unlike = _differences(kept, identity)
    if unlike:
        raise UsageError(
            f"the finished analysis at {out} differs in {', '.join(unlike)}; choose a new --out "
            "folder"
        )
    record = read_json(path, dict, max_bytes=_MAX_RESULT_BYTES)
    return as_record({**record, "out": None}, kind, origin=str(path))


def _differences(path: Path, identity: Mapping[str, Any]) -> list[str]:
    """Return the parts of an identity that differ in a file."""
    wanted = json.loads(json.dumps(identity))
    found = read_json(path, dict, max_bytes=_MAX_BYTES)
    return [key for key in wanted if found.get(key) != wanted[key]]


def identity_of(networks: Sequence[Subject], **settings: Any) -> dict[str, Any]:
    """Return what the scores of networks depend on, with settings by name.

    Data are distinguished by the contents of all instances, and weights by the activations of each
    network's first instance.
    """
    data = hashlib.sha256()
    for network in networks:
        places = [(one.key, one.label, one.start, one.seconds) for one in network.places]
        data.update(repr((places, network.fingerprint())).encode())
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
        "revision": _REVISION,
        **settings,
    }
