import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from support.references import reference_philox
from torch.nn import functional as F
from torchvision.transforms import RandomResizedCrop, functional as vision

from seit.augment import (
    Op,
    SampleRandom,
    center_crop,
    random_crop_boxes,
    resample,
    resize_matrices,
)

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
GRIDS = [((32, 32), (28, 28)), ((8, 8), (7, 7)), ((16, 24), (14, 21)), ((9, 13), (11, 6))]


def draws(count, *, epoch=0):
    return SampleRandom(17, epoch, torch.arange(count))


def one_by_one(x, boxes, out, mode):
    """Each sample cropped and resized alone, as the official data pipeline does."""
    return torch.cat(
        [
            F.interpolate(
                x[b : b + 1, :, top : top + height, left : left + width],
                size=out,
                mode=mode,
                align_corners=False,
            )
            for b, (top, left, height, width) in enumerate(torch.stack(boxes, dim=1).tolist())
        ]
    )


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("grid", "out"), GRIDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_resampling_after_look_up_equals_the_one_hot_route(grid, out, mode, dtype, tolerance):
    B, K, C = 24, 37, 6
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, K, (B, *grid), generator=generator)
    codebook = torch.randn((K, C), generator=generator, dtype=dtype)
    boxes = random_crop_boxes(draws(B), grid, scale=SCALE, ratio=RATIO)

    one_hot = F.one_hot(tokens, K).permute(0, 3, 1, 2).to(dtype)
    resized = one_by_one(one_hot, boxes, out, mode)
    expected = torch.einsum("bkhw,kc->bchw", resized, codebook)

    rows, columns = (
        resize_matrices(start, length, in_size=i, out_size=o, mode=mode, dtype=dtype)
        for start, length, i, o in zip(boxes[:2], boxes[2:], grid, out, strict=True)
    )
    x = codebook[tokens].permute(0, 3, 1, 2)
    for layout in (x, x.contiguous()):
        y = resample(layout, rows, columns)
        assert y.is_contiguous()
        assert (y - expected).abs().max() < tolerance


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from(["bicubic", "bilinear"]))
def test_matrices_equal_interpolation_of_a_line(data, mode):
    length, out = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    before, after = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5))
    size = before + length + after
    matrix = resize_matrices(
        torch.tensor([before]),
        torch.tensor([length]),
        in_size=size,
        out_size=out,
        mode=mode,
        dtype=torch.float64,
    )[0]
    # Interpolating the rows of the identity, all at once, gives the transposed matrix.
    identity = torch.eye(size, dtype=torch.float64)[None, None, :, before : before + length]
    expected = F.interpolate(identity, (size, out), mode=mode, align_corners=False)[0, 0].T
    assert (matrix - expected).abs().max() < 1e-12
    assert (matrix.sum(dim=1) - 1).abs().max() < 1e-12


def test_autocast_does_not_lower_the_precision():
    matrices = resize_matrices(torch.tensor([3]), torch.tensor([20]), in_size=32, out_size=28)
    x = torch.randn((1, 4, 32, 32), generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = resample(x, matrices, matrices)
    assert torch.equal(y, resample(x, matrices, matrices))


def reference_boxes(u, place, grid, scale, ratio):
    """RandomResizedCrop as its documentation tells it, one sample at a time in float64.

    Its ratios are taken relative to the grid's own.
    """
    H, W = grid
    ratio = [one * W / H for one in ratio]
    for area_draw, ratio_draw in zip(*u, strict=True):
        area = H * W * (scale[0] + (scale[1] - scale[0]) * area_draw)
        aspect = math.exp(
            math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * ratio_draw
        )
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= W and 0 < h <= H:
            return place[0] * (H - h + 1) >> 32, place[1] * (W - w + 1) >> 32, h, w
    aspect = min(max(W / H, ratio[0]), ratio[1])
    h, w = (round(W / aspect), W) if ratio[0] * H > W else (H, round(H * aspect))
    return (H - h) // 2, (W - w) // 2, h, w


@pytest.mark.parametrize(
    ("grid", "scale", "ratio"),
    [
        ((32, 32), SCALE, RATIO),
        ((8, 8), SCALE, RATIO),
        ((16, 24), SCALE, RATIO),
        ((224, 256), (0.2, 1.0), RATIO),
        ((16, 24), (0.8, 1.0), (1.2, 1.8)),
        ((8, 50), SCALE, RATIO),
        ((2, 375), (0.35, 1.0), RATIO),
        ((1, 375), SCALE, RATIO),
    ],
)
def test_boxes_equal_the_reference_loop(grid, scale, ratio):
    random = draws(3000)
    boxes = torch.stack(random_crop_boxes(random, grid, scale=scale, ratio=ratio), dim=1)
    u = random.uniform(Op.CROP_SHAPE, (2, 10)).double().numpy()
    places = [reference_philox((0, Op.CROP_PLACE, b, 0), (17, 0)) for b in range(3000)]
    expected = [reference_boxes(u[b], places[b], grid, scale, ratio) for b in range(3000)]
    # Float32 may round a side the other way where it falls on a half: seen for none or one.
    agree = (boxes == torch.tensor(expected)).all(dim=1)
    assert agree.double().mean() > 0.999
    top, left, height, width = boxes.T
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] >= 1).all()
    assert (top + height <= grid[0]).all()
    assert (left + width <= grid[1]).all()


def test_shapes_have_the_distribution_of_torchvision():
    torch.manual_seed(0)
    image = torch.empty(3, 32, 32)
    theirs = torch.tensor(
        [RandomResizedCrop.get_params(image, list(SCALE), list(RATIO)) for _ in range(3000)]
    ).double()
    boxes = random_crop_boxes(draws(3000), (32, 32), scale=SCALE, ratio=RATIO)
    ours = torch.stack(boxes, dim=1).double()
    spread = (theirs.var(0) + ours.var(0)).sqrt() / math.sqrt(3000)
    assert ((theirs.mean(0) - ours.mean(0)).abs() < 4 * spread).all()
    np.testing.assert_allclose(ours.std(0), theirs.std(0), rtol=0.08)


@pytest.mark.parametrize(
    ("grid", "ratio"), [((32, 32), (3, 4)), ((32, 32), (0.25, 0.3)), ((16, 24), (0.5, 0.6))]
)
def test_a_crop_that_never_fits_falls_back_to_the_centre(grid, ratio):
    ours = random_crop_boxes(draws(5), grid, scale=(1, 1), ratio=ratio)
    in_cells = [one * grid[1] / grid[0] for one in ratio]
    theirs = RandomResizedCrop.get_params(torch.empty(3, *grid), [1.0, 1.0], in_cells)
    assert [tuple(box) for box in torch.stack(ours, dim=1).tolist()] == [theirs] * 5


@pytest.mark.parametrize("grid", [(16, 64), (40, 100), (2, 375), (8, 50), (1, 375), (375, 1)])
def test_a_crop_of_scale_and_ratio_1_is_the_whole_grid_of_any_shape(grid):
    boxes = random_crop_boxes(draws(200), grid, scale=(1, 1), ratio=(1, 1))
    assert torch.stack(boxes, dim=1).unique(dim=0).tolist() == [[0, 0, *grid]]


@pytest.mark.parametrize("grid", [(32, 128), (128, 32), (40, 1000)])
def test_crops_of_a_long_grid_are_as_large_and_as_stretched_as_those_of_a_square(grid):
    """Shares of both sides have one distribution, whatever the grid's shape."""
    H, W = grid
    found = random_crop_boxes(draws(4000), grid, scale=SCALE, ratio=RATIO)
    shares = torch.stack((found.height / H, found.width / W), dim=1).double()
    square = random_crop_boxes(draws(4000), (1000, 1000), scale=SCALE, ratio=RATIO)
    expected = torch.stack((square.height, square.width), dim=1).double() / 1000
    assert ((shares.mean(0) - expected.mean(0)).abs() < 0.01).all()
    assert ((shares.std(0) - expected.std(0)).abs() < 0.01).all()
    stretch = shares[:, 1] / shares[:, 0]
    half_a_cell = 1 + 0.5 / (0.24 * min(grid))  # 0.24 is the least share of a side
    assert stretch.min() >= RATIO[0] / half_a_cell
    assert stretch.max() <= RATIO[1] * half_a_cell


def test_crops_of_a_single_row_are_cut_in_time_alone():
    boxes = random_crop_boxes(draws(4000), (1, 400), scale=SCALE, ratio=RATIO)
    assert (boxes.height == 1).all()
    # A row of height 1 is a rounded half of one at least, and as wide times 3/4.
    assert boxes.width.min() >= 0.5 * 0.75 * 400 - 0.5
    assert (boxes.width == 400).double().mean() < 0.01
    assert boxes.left.max() > 200
    assert 0.7 < (boxes.width / 400).double().mean() < 0.8


def test_boxes_of_square_grids_stay_as_they_were():
    """Runs on images continue bit for bit: boxes of earlier versions."""
    boxes = random_crop_boxes(draws(6), (32, 32), scale=SCALE, ratio=RATIO)
    assert torch.stack(boxes, dim=1).tolist() == [
        *([0, 2, 20, 25], [1, 1, 31, 28], [0, 12, 22, 18]),
        *([1, 3, 30, 27], [11, 4, 20, 16], [2, 3, 19, 22]),
    ]


def test_the_smallest_grid_has_a_crop():
    boxes = random_crop_boxes(draws(50), (1, 1), scale=SCALE, ratio=(3.0, 4.0))
    assert torch.stack(boxes, dim=1).unique(dim=0).tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (27, 25), (1, 32)])
def test_center_crop_equals_torchvision(size):
    x = torch.arange(2 * 32 * 32).view(2, 32, 32)
    assert torch.equal(center_crop(x, size), vision.center_crop(x, list(size)))
