"""Volumes of NIfTI files: responses of the voxels of a mask, or of the regions of an atlas.

Headers are parsed by nibabel; volumes are read one at a time, and only as many bytes as the header
says, so that a file needs no more memory than its mask.

Legend: X Y Z voxels, V volumes, M targets.
"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from seit.analysis.brain.responses import Array
from seit.documents import reason_of
from seit.errors import UsageError
from seit.extras import check_installed
from seit.files import open_plain

SUFFIXES = (".nii", ".nii.gz")
MAX_VOXELS = 1 << 27
"""Most voxels of a volume."""
MAX_BYTES = 1 << 33
"""Most bytes of the responses of a run, and of a file."""
_MAX_OFFSET = 1 << 20
_HEADER_BYTES = {348: "Nifti1Header", 540: "Nifti2Header"}
_MNI = 4
_TOLERANCE = 1e-3
_FAULTS = (OSError, EOFError, ValueError, KeyError, TypeError, OverflowError, zlib.error)


@dataclass(frozen=True)
class Space:
    """Voxels that are targets, or belong to one.

    Attributes:
        targets: int64 (X, Y, Z): number of each voxel's target, −1 for none.
        num_targets: M.
        affine: float64 (4, 4), voxels to millimeters.
        is_mni: whether it is MNI's space.
        names: label of each target in the atlas; empty for a mask.
    """

    targets: npt.NDArray[np.int64]
    num_targets: int
    affine: Array
    is_mni: bool
    names: tuple[int, ...] = ()

    def volume(self, values: npt.NDArray[Any], *, outside: float = 0.0) -> npt.NDArray[np.float32]:
        """Return values (M,) of the targets as a volume (X, Y, Z)."""
        padded = np.append(values.astype(np.float32), np.float32(outside))
        placed: npt.NDArray[np.float32] = padded[self.targets]
        return placed


@dataclass(frozen=True)
class _Header:
    """Facts of a file's header.

    Attributes:
        shape: (X, Y, Z, V); V is 1 of a single volume.
        dtype: type of the stored numbers.
        offset: bytes before the first of them.
        slope: factor of the stored numbers.
        intercept: added to them.
        affine: float64 (4, 4).
        is_mni: whether it is MNI's space.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    affine: Array
    is_mni: bool


def is_volume(path: Path) -> bool:
    """Return whether a file's name is that of a NIfTI file."""
    return path.name.endswith(SUFFIXES)


def read_space(path: str | Path, *, has_regions: bool) -> Space:
    """Read a mask, or an atlas whose regions are numbered from 1.

    Args:
        path: NIfTI file of one volume.
        has_regions: whether it is an atlas, whose regions are averaged.

    Raises:
        UsageError: it cannot be read, has no voxel, or nibabel is not installed.
    """
    path = Path(path)
    what = "atlas" if has_regions else "mask"
    with _opened(path, what) as (header, file):
        if header.shape[3] != 1:
            raise ValueError(f"it has {header.shape[3]} volumes; a {what} has one")
        values = _next_volume(file, header)
    inside = np.nan_to_num(values) > 0.5
    if not inside.any():
        raise UsageError(f"the {what} {path} has no voxel above 0; pass another")
    targets = np.full(values.shape, -1, dtype=np.int64)
    names: tuple[int, ...] = ()
    if has_regions:
        labels = values[inside]
        if not np.array_equal(labels, labels.round()) or labels.max() >= 1 << 31:
            raise UsageError(f"the atlas {path} holds values that are no numbers of regions")
        found, numbers = np.unique(labels.astype(np.int64), return_inverse=True)
        targets[inside] = numbers
        names = tuple(found.tolist())
    else:
        targets[inside] = np.arange(inside.sum())
    count = int(targets.max()) + 1
    return Space(targets, count, header.affine, header.is_mni, names)


def read_volumes(path: Path, space: Space) -> Array:
    """Return the responses (V, M) of a run, float64; regions are means over their voxels.

    Raises:
        UsageError: it cannot be read, or is not on the grid of the mask.
    """
    inside = space.targets >= 0
    targets = space.targets[inside]
    sizes = np.bincount(targets, minlength=space.num_targets)
    with _opened(path, "responses") as (header, file):
        if header.shape[:3] != space.targets.shape or not np.allclose(
            header.affine, space.affine, atol=_TOLERANCE
        ):
            raise ValueError(
                f"it has {_shown(header.shape[:3])} voxels and the mask "
                f"{_shown(space.targets.shape)}, or another affine; resample the mask to it, for "
                "example with nilearn.image.resample_to_img"
            )
        if header.shape[3] * space.num_targets * 8 > MAX_BYTES:
            raise ValueError(f"its responses take more than {MAX_BYTES >> 30} GiB")
        rows: Array = np.empty((header.shape[3], space.num_targets))
        for number in range(header.shape[3]):
            values = _next_volume(file, header)[inside]
            rows[number] = np.bincount(targets, weights=values, minlength=space.num_targets)
    return rows / sizes


def _shown(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


@contextmanager
def _opened(path: Path, what: str) -> Iterator[tuple[_Header, IO[bytes]]]:
    """Open a file at its first volume; faults of its bytes become a `UsageError`."""
    check_installed(["nibabel"], use="NIfTI files", extra="brain")
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    try:
        with open_plain(path) as raw:
            file: Any = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
            header = _parse_header(file)
            yield header, file
    except UsageError:
        raise
    except (*_FAULTS, HeaderDataError, WrapStructError) as error:
        kind = "truncated" if isinstance(error, EOFError) else reason_of(error)
        raise UsageError(f"the {what} {path} cannot be read as NIfTI: {kind}") from error


def _parse_header(file: IO[bytes]) -> _Header:
    import nibabel

    start = _read(file, 4)
    sizes = {int.from_bytes(start, order) for order in ("little", "big")}
    size = next((one for one in _HEADER_BYTES if one in sizes), None)
    if size is None:
        raise ValueError("it does not begin with a NIfTI header")
    kind: Any = getattr(nibabel, _HEADER_BYTES[size])
    header = kind(start + _read(file, size - 4), check=True)
    if bytes(header["magic"])[:2] not in (b"n+",):
        raise ValueError("its header and volumes are in two files; convert it to one .nii")
    shape = tuple(int(side) for side in header.get_data_shape())
    offset, dtype = float(header["vox_offset"]), header.get_data_dtype()
    slope, intercept = (float(header[name]) for name in ("scl_slope", "scl_inter"))
    if len(shape) not in (3, 4) or min(shape) < 1 or int(np.prod(shape[:3])) > MAX_VOXELS:
        raise ValueError(f"it has shape {shape}; expected X × Y × Z voxels and perhaps time")
    if dtype.kind not in "iuf" or not size <= offset <= _MAX_OFFSET:
        raise ValueError(f"it holds {dtype} from byte {offset:g} on; expected plain numbers")
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    if not np.isfinite(affine).all():
        raise ValueError("its affine is not finite")
    _skip(file, int(offset) - size)
    is_scaled = np.isfinite(slope) and slope != 0
    return _Header(
        shape=(shape[0], shape[1], shape[2], shape[3] if len(shape) > 3 else 1),
        dtype=dtype,
        offset=int(offset),
        slope=slope if is_scaled else 1.0,
        intercept=intercept if is_scaled and np.isfinite(intercept) else 0.0,
        affine=affine,
        is_mni=_MNI in (int(header["sform_code"]), int(header["qform_code"])),
    )


def _next_volume(file: IO[bytes], header: _Header) -> Array:
    sides = header.shape[:3]
    data = _read(file, int(np.prod(sides)) * header.dtype.itemsize)
    values = np.frombuffer(data, dtype=header.dtype).reshape(sides, order="F")
    scaled: Array = values.astype(np.float64) * header.slope + header.intercept
    return scaled


def _skip(file: IO[bytes], count: int) -> None:
    _read(file, count)


def _read(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError
    return data
