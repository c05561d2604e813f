"""Views of grids for test-time augmentation."""

import pytest
import torch
from torch.nn import functional as F

from seit.augment import AugmentConfig, GridViews, TokenAugment
from seit.errors import UsageError

CODES = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
IDS = torch.randint(16, (2, 8, 8), generator=torch.Generator().manual_seed(1))


def augment_to(side):
    return TokenAugment(CODES, (8, 8), AugmentConfig(crop_size=side))


def test_pictures_have_crops_the_whole_grid_and_mirror_images():
    augment = augment_to(6)
    views = GridViews(augment, flips=True, is_sound=False)
    found = views(IDS)
    assert found.shape == (12, 2, 3, 6, 6) == (views.num_views, 2, 3, 6, 6)
    whole = CODES[IDS].permute(0, 3, 1, 2)
    torch.testing.assert_close(found[0], augment.evaluate(IDS))
    for view, (top, left) in zip(found[1:5], [(0, 0), (0, 2), (2, 0), (2, 2)], strict=True):
        torch.testing.assert_close(view, whole[..., top : top + 6, left : left + 6])
    resized = F.interpolate(whole, (6, 6), mode="bicubic", align_corners=False)
    torch.testing.assert_close(found[5], resized, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[6:], found[:6].flip(-1))


def test_sounds_take_the_start_the_middle_and_the_end():
    found = GridViews(augment_to(6), flips=True, is_sound=True)(IDS)
    whole = CODES[IDS].permute(0, 3, 1, 2)
    expected = torch.stack([whole[..., 1:7, left : left + 6] for left in (1, 0, 2)])
    torch.testing.assert_close(found, expected)


def test_a_whole_grid_has_its_mirror_image_alone_or_is_refused():
    assert GridViews(augment_to(8), flips=True, is_sound=False).num_views == 2
    with pytest.raises(UsageError, match=r"whole grids of 8×8 tokens.*leave --tta out"):
        GridViews(augment_to(8), flips=False, is_sound=False)
