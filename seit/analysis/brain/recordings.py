"""Recordings of responses: files of numbers by subject and run.

Legend: V samples of a run, M targets.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from seit.analysis.brain.responses import Array
from seit.analysis.brain.volumes import Space, is_volume, read_volumes
from seit.documents import reason_of
from seit.errors import UsageError
from seit.npy import NPY_ERRORS
from seit.numbers import counted

SUFFIXES = (".npy", ".npz", ".csv")
ARRAY_NAME = "responses"
"""Array of an .npz file with several."""
MAX_FILE_BYTES = 1 << 33
ONE_SUBJECT = "responses"
"""Name of the subject of a folder without subfolders."""


@dataclass(frozen=True)
class Recordings:
    """Responses of all subjects.

    Attributes:
        runs: float64 (V, M) by subject and run.
        num_targets: M, without dropped ones.
        kept: numbers of the targets that vary in every run.
        space: voxels of the targets, of responses that were read from volumes.
    """

    runs: Mapping[str, Mapping[str, Array]]
    num_targets: int
    kept: tuple[int, ...]
    space: Space | None = None


def read_recordings(folder: str | Path, *, space: Space | None = None) -> Recordings:
    """Read responses from files ``RUN.npy`` (.npz, .csv, .nii, .nii.gz) or ``SUBJECT/RUN.npy``.

    The path of a run below its subject, without suffix, is that of its stimulus. Targets that are
    constant in a run are dropped for all.

    Args:
        folder: folder of the files.
        space: voxels or regions to read from NIfTI files.

    Raises:
        UsageError: there are none, a file cannot be read or holds NaNs, or the numbers of targets
            differ.
    """
    root = Path(folder)
    files = sorted(path for path in root.rglob("*") if path.suffix in SUFFIXES or is_volume(path))
    if not files:
        raise UsageError(
            f"{root} holds no responses; expected RUN.npy or SUBJECT/RUN.npy, or one of "
            f"{', '.join(SUFFIXES[1:])}"
        )
    has_subjects = all(len(path.relative_to(root).parts) > 1 for path in files)
    runs: dict[str, dict[str, Array]] = {}
    for path in files:
        plain = path.with_suffix("") if path.suffix == ".gz" else path
        parts = plain.relative_to(root).with_suffix("").parts
        subject = parts[0] if has_subjects else ONE_SUBJECT
        run = "/".join(parts[1:] if has_subjects else parts)
        runs.setdefault(subject, {})[run] = _read(path, space)
    dims = {values.shape[1] for own in runs.values() for values in own.values()}
    if len(dims) > 1:
        raise UsageError(
            f"the runs of {root} have {', '.join(map(str, sorted(dims)))} targets; all must have "
            "the same"
        )
    every = [values for own in runs.values() for values in own.values()]
    varies = np.all([np.ptp(values, axis=0) > 0 for values in every], axis=0)
    if not varies.any():
        raise UsageError(
            f"every target of {root} is constant in some run; there is none to predict"
        )
    kept = {
        subject: {run: values[:, varies] for run, values in own.items()}
        for subject, own in runs.items()
    }
    return Recordings(kept, int(varies.sum()), tuple(np.flatnonzero(varies).tolist()), space)


def _read(path: Path, space: Space | None) -> Array:
    if is_volume(path) and space is None:
        raise UsageError(
            f"{path} is a NIfTI file; pass --mask, its voxels to predict, or --atlas, its regions"
        )
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"it is larger than {MAX_FILE_BYTES >> 30} GiB")
        if is_volume(path) and space is not None:
            values: np.ndarray[tuple[int, ...], np.dtype[Any]] = read_volumes(path, space)
        else:
            values = _parse(path)
    except (OSError, KeyError, EOFError, BadZipFile, RuntimeError, csv.Error, *NPY_ERRORS) as error:
        raise UsageError(f"the responses {path} cannot be read: {reason_of(error)}") from error
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or values.dtype.kind not in "iuf" or not values.size:
        raise UsageError(
            f"{path} holds {values.dtype} of shape {values.shape}; responses are numbers (time, "
            "targets)"
        )
    numbers: Array = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        bad = int((~np.isfinite(numbers)).any(1).sum())
        raise UsageError(
            f"{path} has {counted(bad, 'sample')} with NaN or infinity; remove or repair them"
        )
    return numbers


def _parse(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
        is_header = bool(rows) and not _are_numbers(rows[0])
        return np.array([[float(cell) for cell in row] for row in rows[is_header:]])
    if path.suffix == ".npy":
        return np.lib.format.open_memmap(path, mode="r")
    with path.open("rb") as binary, np.load(binary, allow_pickle=False) as loaded:
        names = loaded.files
        name = ARRAY_NAME if ARRAY_NAME in names else names[0] if len(names) == 1 else ""
        if not name:
            raise ValueError(f"it holds {', '.join(names) or 'nothing'}, and not {ARRAY_NAME}")
        return np.asarray(loaded[name])


def _are_numbers(cells: list[str]) -> bool:
    try:
        [float(cell) for cell in cells]
    except ValueError:
        return False
    return True
