"""Maps of brain scores as NIfTI files, and pictures of them.

Legend: X Y Z voxels, L layers, M targets.
"""

import gzip
import warnings
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.analysis.brain.recordings import Recordings
from seit.analysis.brain.responses import Array
from seit.analysis.brain.volumes import Space
from seit.files import write_atomically

SCORES_NAME, BEST_NAME = "scores.nii.gz", "best_layer.nii.gz"
PICTURES = ("slices", "glass", "surface")
"""Views of a map, in order; those of brains in MNI's space alone from the second on."""


def write_maps(
    folder: Path,
    recordings: Recordings,
    scores: Mapping[str, Array],
    best_layer: str,
) -> dict[str, Path]:
    """Write maps of a subject's scores into a folder, and pictures if nilearn is installed.

    `scores.nii.gz` float32 (X, Y, Z, L) holds the score of each layer, a mean over people;
    `best_layer.nii.gz` int16 (X, Y, Z) the number of the best layer, from 1, and 0 outside. Targets
    that were dropped are 0 in both.

    Args:
        folder: folder to create.
        recordings: responses that were read from volumes.
        scores: scores (M,) of each layer.
        best_layer: layer to draw.

    Returns:
        Pictures by view.
    """
    space = recordings.space
    assert space is not None, "responses from volumes"
    folder.mkdir(parents=True, exist_ok=True)
    layers = list(scores)
    kept = list(recordings.kept)

    def full(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        every = np.zeros(space.num_targets, dtype=np.float32)
        every[kept] = values
        return space.volume(every)

    stacked = np.stack([full(scores[layer]) for layer in layers], axis=-1)
    best = full(np.stack([scores[layer] for layer in layers]).argmax(0) + 1)
    _write(folder / SCORES_NAME, stacked, space)
    _write(folder / BEST_NAME, best.astype(np.int16), space)
    if any(find_spec(name) is None for name in ("nilearn", "matplotlib")):
        return {}
    return _draw(folder, stacked[..., layers.index(best_layer)], space, best_layer)


def _write(path: Path, values: npt.NDArray[Any], space: Space) -> None:
    write_atomically(path, gzip.compress(_image(values, space).to_bytes(), mtime=0))


def _image(values: npt.NDArray[Any], space: Space) -> Any:
    import nibabel

    image: Any = nibabel.Nifti1Image(values, space.affine)
    if space.is_mni:
        image.header.set_sform(space.affine, code="mni")
    return image


def _draw(
    folder: Path, values: npt.NDArray[np.float32], space: Space, layer: str
) -> dict[str, Path]:
    """Draw a map; a view that the map does not suit, such as one without a voxel, is left out."""
    import matplotlib

    matplotlib.use("Agg")
    image = _image(values, space)
    views = PICTURES if space.is_mni else PICTURES[:1]
    found = {}
    title = f"score of {layer}"
    for view in views:
        path = folder / f"{view}.png"
        with warnings.catch_warnings(), suppress(ValueError, IndexError):
            warnings.simplefilter("ignore")  # of places without a voxel
            _VIEWS[view](image, path, title)
            found[view] = path
    return found


def _slices(image: Any, path: Path, title: str) -> None:
    from nilearn import plotting

    is_mni = int(image.header["sform_code"]) == 4
    background = {} if is_mni else {"bg_img": None}
    plotting.plot_stat_map(
        image, title=title, draw_cross=False, cmap="viridis", output_file=path, **background
    )


def _glass(image: Any, path: Path, title: str) -> None:
    from nilearn import plotting

    plotting.plot_glass_brain(
        image, title=title, colorbar=True, threshold=1e-6, cmap="viridis", output_file=path
    )


def _surface(image: Any, path: Path, title: str) -> None:
    from matplotlib import pyplot
    from nilearn import datasets, plotting, surface

    meshes = datasets.load_fsaverage("fsaverage5")  # in the package, not downloaded
    figure, axes = pyplot.subplots(1, 2, subplot_kw={"projection": "3d"}, figsize=(10, 4.5))
    limits = {"vmin": 0.0, "vmax": max(float(np.nanmax(image.get_fdata())), 1e-6)}
    for axis, side in zip(axes, ("left", "right"), strict=True):
        texture = surface.vol_to_surf(image, meshes["pial"].parts[side])
        plotting.plot_surf_stat_map(
            meshes["inflated"].parts[side],
            texture,
            hemi=side,
            view="lateral",
            axes=axis,
            cmap="viridis",
            title=f"{title}, {side}",
            **limits,
        )
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


_VIEWS = {"slices": _slices, "glass": _glass, "surface": _surface}
