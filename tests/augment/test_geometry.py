"""Warps: flip, rotation, shift, shear and crop, against torchvision one after the other."""

import math

import pytest
import torch
from torchvision.transforms import InterpolationMode, functional as vision

from seit.augment import Geometry, Op, SampleRandom, random_crop_boxes, random_warps, warp
from seit.errors import UsageError

STILL = {"flip_prob": 0, "affine_prob": 0, "crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}
SIZES = [(48, 48), (40, 64)]


def draws(count, *, seed=6):
    return SampleRandom(seed, 0, torch.arange(count))


def smooth(B, H, W):
    """Waves so long that ways of interpolating hardly differ, float64."""
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    phase = torch.arange(3 * B).view(B, 3, 1, 1)
    return (torch.sin(0.11 * x + 0.07 * y + phase) + torch.cos(0.05 * x - 0.13 * y)).double()


def warped(x, geometry, size=None, mode="bilinear"):
    H, W = x.shape[2:]
    warps = random_warps(draws(len(x)), (H, W), geometry).double()
    return warp(x, warps, size or (H, W), mode=mode)


@pytest.mark.parametrize("size", SIZES)
def test_a_warp_of_nothing_and_a_flip_are_exact(size):
    x = smooth(4, *size)
    torch.testing.assert_close(warped(x, Geometry(**STILL)), x)
    flipped = warped(x, Geometry(**STILL | {"flip_prob": 1}))
    torch.testing.assert_close(flipped, x.flip(-1))


def one_after_the_other(image, draw, *, max_shift):
    """Rotate, TranslateX, TranslateY, ShearX and ShearY of TokenAdapt's code, each by torchvision.

    ``draw`` are the twelve uniform numbers of the sample.
    """
    _, _, rotates, right, slants, angle, dx, dy, slant, tilt, down, tilts = draw
    H, W = image.shape[1:]

    def affine(image, angle=0.0, shear=(0.0, 0.0)):
        return vision.affine(
            image,
            angle=angle,
            translate=[0, 0],  # whole cells only in torchvision, so shifts follow by themselves
            scale=1.0,
            shear=list(shear),
            interpolation=InterpolationMode.BILINEAR,
        )

    def shift(image, x=0.0, y=0.0):
        moved = torch.tensor([[[1, 0, -2 * x / W], [0, 1, -2 * y / H]]]).double()
        return warp(image[None], moved, (H, W), mode="bilinear")[0]

    if rotates < 0.5:
        image = affine(image, angle=30 * (2 * angle - 1))
    if right < 0.5:
        image = shift(image, x=max_shift * (2 * dx - 1) * W)
    if down < 0.5:
        image = shift(image, y=max_shift * (2 * dy - 1) * H)
    if slants < 0.5:
        image = affine(image, shear=(15 * slant, 0.0))
    if tilts < 0.5:
        image = affine(image, shear=(0.0, 15 * tilt))
    return image


@pytest.mark.parametrize("size", SIZES)
def test_five_operations_equal_torchvision(size):
    """Far from the edge, where torchvision lets the outside shine in."""
    H, W = size
    x = smooth(40, H, W)
    geometry = Geometry(
        flip_prob=0, affine_prob=1, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), max_shift=0.1
    )
    y = warped(x, geometry)
    inner = (slice(None), slice(3 * H // 8, 5 * H // 8), slice(3 * W // 8, 5 * W // 8))
    u = draws(40).uniform(Op.ADAPT_GEOMETRY, (12,)).double()
    met = u[:, [2, 3, 10, 4, 11]] < 0.5
    assert len(met.unique(dim=0)) > 20, "nearly all combinations"
    for b in range(40):
        expected = one_after_the_other(x[b], u[b].tolist(), max_shift=0.1)
        torch.testing.assert_close(y[b][inner], expected[inner], atol=0.04, rtol=0)


def test_operations_are_independent_and_shears_go_one_way():
    B, full = 8000, {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}
    still = {"flip_prob": 0, "affine_prob": 1, "max_degrees": 0, **full}
    shifts = random_warps(draws(B), (32, 32), Geometry(max_shear=0, **still))[:, :, 2]
    sheared = random_warps(draws(B), (32, 32), Geometry(max_shift=0, **still))
    # What undoes a shear along y, then one along x: (1 + xy, x; y, 1).
    tangents = torch.stack((sheared[:, 0, 1], sheared[:, 1, 0]), dim=1)
    assert (tangents >= 0).all()
    assert math.tan(math.radians(14.9)) < tangents.max() <= math.tan(math.radians(15)) + 1e-6
    for met in (shifts != 0, tangents > 0):
        for share, expected in ((met.double().mean(0), 0.5), (met.all(1).double().mean(), 0.25)):
            assert (share - expected).abs().max() < 4 * math.sqrt(expected * (1 - expected) / B)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", SIZES)
def test_crops_equal_torchvision(size, mode):
    H, W = size
    x = smooth(12, H, W)
    y = warped(x, Geometry(flip_prob=0, affine_prob=0), (30, 30), mode)
    boxes = random_crop_boxes(draws(12), size, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    for b, box in enumerate(torch.stack(boxes, dim=1).tolist()):
        expected = vision.resized_crop(
            x[b], *box, size=[30, 30], interpolation=InterpolationMode(mode), antialias=False
        )
        # At the border torchvision repeats the crop's edge, a warp reads on in the image.
        inner = (slice(None), slice(4, -4), slice(4, -4))
        torch.testing.assert_close(y[b][inner], expected[inner], atol=1e-5, rtol=0)


def test_the_parts_come_in_the_documented_order():
    """A point of the result is looked up in the crop, before the affine map, before the flip."""
    size, B = (32, 48), 40
    everything = random_warps(draws(B), size, Geometry(part_prob=1.0)).double()
    crop = random_warps(draws(B), size, Geometry(flip_prob=0, affine_prob=0)).double()
    full = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}
    affine = random_warps(draws(B), size, Geometry(flip_prob=0, part_prob=1.0, **full)).double()
    flip = random_warps(draws(B), size, Geometry(affine_prob=0, **full)).double()
    point = torch.tensor([0.3, -0.6]).double().expand(B, 2)
    expected = point
    for matrix in (crop, affine, flip):
        expected = (matrix[:, :, :2] @ expected[..., None])[..., 0] + matrix[:, :, 2]
    found = (everything[:, :, :2] @ point[..., None])[..., 0] + everything[:, :, 2]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_shares_and_ranges_of_the_parts():
    B, full = 4000, {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}
    warps = random_warps(draws(B), (32, 32), Geometry(max_shear=0, **full)).double()
    mirrored = (torch.linalg.det(warps[:, :, :2]) < 0).double().mean()
    turned = (warps[:, 1, 0].abs() > 1e-6).double().mean()
    shifted = (warps[:, :, 2].abs() > 1e-6).any(dim=1).double().mean()
    for share, expected in ((mirrored, 0.5), (turned, 0.25), (shifted, 0.5 * 0.75)):
        assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / B)
    angle = torch.rad2deg(torch.atan2(warps[:, 1, 0], warps[:, 1, 1]))
    assert 29 < angle.abs().max() <= 30.001
    still = Geometry(flip_prob=0, part_prob=1.0, max_degrees=0, max_shear=0, **full)
    shift = random_warps(draws(B), (32, 32), still)[:, :, 2] / 2
    assert 0.19 < shift.abs().max() <= 0.2001


def test_what_comes_from_outside_is_zero_and_edges_are_not_mixed_with_it():
    x = torch.full((1, 1, 8, 8), 3.0)
    half_a_cell = torch.tensor([[[1.0, 0.0, 0.125], [0.0, 1.0, 0.0]]])
    row = warp(x, half_a_cell, (8, 8))[0, 0, 0]
    assert row.tolist() == pytest.approx([3.0] * 8)
    two_cells = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]])
    assert warp(x, two_cells, (8, 8))[0, 0, 0].tolist() == pytest.approx([3.0] * 6 + [0.0] * 2)


def test_warps_belong_to_the_sample():
    whole = random_warps(draws(12), (16, 16), Geometry())
    part = random_warps(SampleRandom(6, 0, torch.tensor([7, 2])), (16, 16), Geometry())
    assert torch.equal(part, whole[[7, 2]])


@pytest.mark.parametrize(
    "wrong",
    [
        {"flip_prob": 1.5},
        {"affine_prob": -0.1},
        {"part_prob": math.nan},
        {"max_degrees": 200.0},
        {"max_shift": 1.5},
        {"max_shear": 90.0},
        {"crop_scale": (0.0, 1.0)},
        {"crop_scale": (0.5, 1.2)},
        {"crop_ratio": (2.0, 1.0)},
        {"crop_ratio": (1.0, math.inf)},
    ],
)
def test_a_value_out_of_range_is_refused_by_name(wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} is .*expected .*: "):
        Geometry(**wrong)
