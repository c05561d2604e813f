"""Responses as NIfTI: masks, atlases, maps back, and files that are refused."""

import gzip
import struct

import nibabel
import numpy as np
import pytest
from support.stories import RUNS, TR, Stories, write_responses

from seit.analysis.brain.config import BrainConfig
from seit.analysis.brain.maps import write_maps
from seit.analysis.brain.recordings import Recordings, read_recordings
from seit.analysis.brain.score import score_brain
from seit.analysis.brain.volumes import read_space, read_volumes
from seit.errors import UsageError

SHAPE = (4, 5, 6)
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0]) + np.array(
    [[0, 0, 0, -6], [0, 0, 0, -9], [0, 0, 0, 2], [0] * 4]
)


def save(path, values, *, affine=AFFINE, mni=False, scaled=False):
    image = nibabel.Nifti1Image(values, affine)
    if mni:
        image.header.set_sform(affine, code="mni")
    if scaled:
        image.header.set_slope_inter(0.5, 3.0)
    nibabel.save(image, path)
    return path


@pytest.fixture
def mask(tmp_path):
    inside = np.zeros(SHAPE, dtype=np.uint8)
    inside[1:3, 1:4, 2] = 1
    return save(tmp_path / "mask.nii.gz", inside, mni=True)


@pytest.fixture
def bold(tmp_path):
    return np.random.default_rng(0).normal(100, 5, (*SHAPE, 7)).astype(np.float32)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_voxels_are_those_that_nibabel_reads(tmp_path, mask, bold, suffix):
    path = save(tmp_path / f"a{suffix}", (bold * 4).astype(np.int16), scaled=True)
    space = read_space(mask, has_regions=False)
    found = read_volumes(path, space)
    expected = nibabel.load(path).get_fdata()[nibabel.load(mask).get_fdata() > 0].T
    assert found.shape == (7, 6)
    assert np.allclose(found, expected, rtol=1e-12)
    assert space.is_mni
    back = space.volume(found[0])
    assert np.allclose(back[space.targets >= 0], found[0])
    assert not back[space.targets < 0].any()


@pytest.mark.slow
def test_regions_are_means_as_those_of_nilearn(tmp_path, bold):
    from nilearn.maskers import NiftiLabelsMasker

    labels = np.zeros(SHAPE, dtype=np.int16)
    labels[:2], labels[2:, :2], labels[3, 4] = 7, 2, 40
    atlas = save(tmp_path / "atlas.nii.gz", labels)
    path = save(tmp_path / "a.nii", bold)
    space = read_space(atlas, has_regions=True)
    assert space.names == (2, 7, 40)
    masker = NiftiLabelsMasker(str(atlas), standardize=None, resampling_target=None)
    assert np.allclose(read_volumes(path, space), masker.fit_transform(str(path)), rtol=1e-5)


def write_volumes(folder, mask):
    """Write the planted responses into the voxels of a mask, one of them constant."""
    inside = nibabel.load(mask).get_fdata() > 0
    numbers = write_responses(folder / "numbers", people=("p",))
    for run in RUNS:
        values = np.load(numbers / "p" / f"{run}.npy")
        values[:, 4] = 2.0
        volumes = np.zeros((*SHAPE, len(values)), dtype=np.float32)
        volumes[inside] = values.T
        path = folder / "bold" / "p" / f"{run}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, volumes, mni=True)
    return folder / "bold"


def score(folder, mask, out):
    space = read_space(mask, has_regions=False)
    recordings = read_recordings(folder, space=space)
    assert recordings.kept == (0, 1, 2, 3, 5)
    config = BrainConfig(tr=TR, nulls=2, random_twin=False)
    return score_brain(Stories(), recordings, config, out=out), space


def test_maps_go_back_to_the_voxels(tmp_path, mask, monkeypatch):
    monkeypatch.setattr("seit.analysis.brain.maps.find_spec", lambda name: None)
    result, space = score(write_volumes(tmp_path, mask), mask, tmp_path / "out")
    assert result.best_layer == "layers.2"
    maps = tmp_path / "out" / "maps"
    best, scores = (nibabel.load(maps / f"{name}.nii.gz") for name in ("best_layer", "scores"))
    assert np.allclose(best.affine, AFFINE)
    values = best.get_fdata()[space.targets >= 0]
    order = space.targets[space.targets >= 0]
    assert values[order].tolist() == [3, 3, 3, 3, 0, 3]
    assert scores.shape == (*SHAPE, 4)
    means = scores.get_fdata()[..., 2][space.targets >= 0]
    assert means[means > 0].mean() == pytest.approx(result.layers[2].score, abs=1e-6)
    assert sorted(path.name for path in maps.iterdir()) == ["best_layer.nii.gz", "scores.nii.gz"]


@pytest.mark.slow
def test_maps_are_drawn(tmp_path):
    """A whole brain of voxels of 8 mm in MNI's space, better predicted from left to right."""
    shape = (20, 24, 20)
    affine = np.diag([8.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = -76, -112, -64
    places = nibabel.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    inside = (((places - (0, -18, 8)) / (70, 90, 70)) ** 2).sum(-1) < 1
    path = save(tmp_path / "mask.nii.gz", inside.astype(np.uint8), affine=affine, mni=True)
    space = read_space(path, has_regions=False)
    kept = tuple(range(space.num_targets))
    scores = (places[inside][:, 0] + 80) / 400
    recordings = Recordings({}, space.num_targets, kept, space)
    found = write_maps(tmp_path / "maps", recordings, {"layers.0": scores}, "layers.0")
    assert list(found) == ["slices", "glass", "surface"]
    assert all(path.stat().st_size > 10_000 for path in found.values())


def patched(path, out, offset, data):
    """Write a copy of an uncompressed file with other bytes at a place."""
    body = bytearray(path.read_bytes())
    body[offset : offset + len(data)] = data
    out.write_bytes(body)
    return out


def test_hostile_files_are_refused(tmp_path, mask, bold):
    space = read_space(mask, has_regions=False)
    good = save(tmp_path / "good.nii", bold)
    body = good.read_bytes()
    shapes = struct.Struct("<8h")
    cases = {
        "truncated": body[:-5],
        "not begin with a NIfTI header": b"\0" * 400,
        "cannot be read as NIfTI": b"",
    }
    for message, data in cases.items():
        (tmp_path / "bad.nii").write_bytes(data)
        with pytest.raises(UsageError, match=message):
            read_volumes(tmp_path / "bad.nii", space)
    (tmp_path / "bad.nii.gz").write_bytes(gzip.compress(body)[:-2000])
    with pytest.raises(UsageError, match="truncated"):
        read_volumes(tmp_path / "bad.nii.gz", space)
    (tmp_path / "bad.nii.gz").write_bytes(b"plain")
    with pytest.raises(UsageError, match="cannot be read as NIfTI"):
        read_volumes(tmp_path / "bad.nii.gz", space)
    huge = shapes.pack(4, 32767, 32767, 32767, 9, 1, 1, 1)
    long = shapes.pack(4, *SHAPE, 32767, 1, 1, 1)
    other = shapes.pack(4, 5, 5, 6, 7, 1, 1, 1)
    for offset, data, message in (
        (40, huge, "has shape"),
        (40, shapes.pack(4, *SHAPE, -3, 1, 1, 1), "cannot be read as NIfTI"),
        (40, long, "truncated"),
        (40, other, "5 × 5 × 6 voxels and the mask 4 × 5 × 6"),
        (70, struct.pack("<h", 32), "cannot be read as NIfTI"),
        (70, struct.pack("<h", 1792), "cannot be read as NIfTI"),
        (108, struct.pack("<f", 3e9), "from byte 3e"),
        (108, struct.pack("<f", float("nan")), "cannot be read as NIfTI"),
        (280, struct.pack("<f", float("nan")), "cannot be read as NIfTI"),
        (344, b"ni1\0", "in two files"),
    ):
        path = patched(good, tmp_path / "bad.nii", offset, data)
        with pytest.raises(UsageError, match=message):
            read_volumes(path, space)


def test_masks_and_folders_that_do_not_fit_are_refused(tmp_path, mask, bold):
    (tmp_path / "bold").mkdir()
    path = save(tmp_path / "bold" / "a.nii.gz", bold)
    with pytest.raises(UsageError, match="pass --mask"):
        read_recordings(tmp_path / "bold")
    with pytest.raises(UsageError, match="7 volumes; a mask has one"):
        read_space(path, has_regions=False)
    with pytest.raises(UsageError, match="no voxel above 0"):
        read_space(save(tmp_path / "z.nii", np.zeros(SHAPE, np.uint8)), has_regions=False)
    with pytest.raises(UsageError, match="no numbers of regions"):
        read_space(save(tmp_path / "f.nii", bold[..., 0]), has_regions=True)
    moved = save(tmp_path / "m.nii", np.ones(SHAPE, np.uint8), affine=np.eye(4))
    with pytest.raises(UsageError, match="resample the mask"):
        read_recordings(tmp_path / "bold", space=read_space(moved, has_regions=False))
    save(path, np.where(bold > 105, np.nan, bold))
    with pytest.raises(UsageError, match="samples with NaN"):
        read_recordings(tmp_path / "bold", space=read_space(mask, has_regions=False))


def test_without_nibabel_one_line_says_what_to_install(mask, monkeypatch):
    monkeypatch.setattr("seit.extras.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="NIfTI files need nibabel; "):
        read_space(mask, has_regions=False)
