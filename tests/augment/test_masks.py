"""Frequency masks, time masks and time roll, against loops over samples."""

import numpy as np
import pytest
import torch

from seit.augment import Op, SampleRandom, mask_bands, random_bands, time_roll


def draws(count, *, seed=4):
    return SampleRandom(seed, 0, torch.arange(count))


def bands_in_a_loop(op, b, size, num_masks, max_share):
    """The cells that the bands of sample ``b`` cover, from its words alone."""
    words = SampleRandom(4, 0, torch.tensor([b])).randint(op, 2**31 - 1, (num_masks, 2))[0]
    covered = np.zeros(size, dtype=bool)
    for u_width, u_start in (words.double() / (2**31 - 1)).tolist():
        width = int(u_width * (int(max_share * size) + 1))
        start = int(u_start * (size - width + 1))
        covered[start : start + width] = True
    return covered


def cells(starts, ends, size):
    """The cells (B, size) that bands (B, M) cover, one by one."""
    covered = torch.zeros((len(starts), size), dtype=torch.bool)
    for b, (first, last) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        for start, end in zip(first, last, strict=True):
            covered[b, start:end] = True
    return covered


@pytest.mark.parametrize(("size", "masks", "share"), [(28, 2, 0.25), (7, 1, 1.0), (64, 5, 0.1)])
def test_bands_equal_a_loop(size, masks, share):
    bands = cells(
        *random_bands(draws(200), Op.TIME_MASK, size, num_masks=masks, max_share=share), size
    )
    for b in range(200):
        expected = bands_in_a_loop(Op.TIME_MASK, b, size, masks, share)
        np.testing.assert_array_equal(bands[b], expected)


def test_every_width_and_place_is_as_likely_as_any_other():
    bands = cells(*random_bands(draws(8000), Op.FREQ_MASK, 10, num_masks=1, max_share=0.35), 10)
    widths = torch.bincount(bands.sum(dim=1), minlength=4).double()
    assert widths.numel() == 4
    assert ((widths - 2000).abs() < 4 * (2000 * 0.75) ** 0.5).all()
    widest = bands[bands.sum(dim=1) == 3]
    starts = torch.bincount(widest.to(torch.uint8).argmax(dim=1), minlength=8).double()
    expected = len(widest) / 8
    assert starts.numel() == 8
    assert ((starts - expected).abs() < 4 * expected**0.5).all()


def test_masks_cover_rows_and_columns_with_the_fill_and_touch_nothing_else():
    x = torch.randn((50, 3, 12, 20), generator=torch.Generator().manual_seed(0))
    fill = torch.tensor([5.0, -6.0, 7.0])
    masked = mask_bands(
        x, draws(50), fill=fill, freq_masks=2, freq_max=0.25, time_masks=1, time_max=0.4
    )
    for b in range(50):
        rows = bands_in_a_loop(Op.FREQ_MASK, b, 12, 2, 0.25)
        columns = bands_in_a_loop(Op.TIME_MASK, b, 20, 1, 0.4)
        expected = x[b].numpy().copy()
        expected[:, rows, :] = fill.numpy()[:, None, None]
        expected[:, :, columns] = fill.numpy()[:, None, None]
        np.testing.assert_array_equal(masked[b], expected)
    none = {"freq_masks": 0, "freq_max": 1.0, "time_masks": 0, "time_max": 1.0}
    assert torch.equal(mask_bands(x, draws(50), fill=fill, **none), x)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16])
@pytest.mark.parametrize(("width", "share", "most"), [(20, 0.25, 5), (7, 0.5, 3), (8, 0.0, 0)])
def test_roll_equals_numpy(dtype, width, share, most):
    tokens = torch.arange(300 * 3 * width).view(300, 3, width).to(dtype)
    rolled = time_roll(tokens, draws(300), max_share=share)
    shifts = draws(300).randint(Op.TIME_ROLL, 2 * most + 1) - most
    assert set(shifts.tolist()) == set(range(-most, most + 1))
    for b in range(300):
        np.testing.assert_array_equal(rolled[b], np.roll(tokens[b].numpy(), shifts[b], axis=1))
    assert rolled.dtype == dtype
