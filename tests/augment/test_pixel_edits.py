"""Color jitter and random erasing of pixels."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as vision

from seit.augment import SampleRandom
from seit.augment.erase import erase_boxes, random_erase
from seit.augment.jitter import color_jitter
from seit.augment.philox import Op

NUM = 400


@pytest.fixture
def random():
    return SampleRandom(3, 5, torch.arange(NUM))


def test_jitter_equals_torchvision(random):
    pixels = torch.rand(NUM, 3, 6, 5, generator=torch.Generator().manual_seed(0)) * 255
    found = color_jitter(pixels, random, strength=0.4)
    factors = 0.6 + 0.8 * random.uniform(Op.JITTER, (3,))
    assert factors.min() < 0.61
    assert factors.max() > 1.39
    for b, (brightness, contrast, saturation) in enumerate(factors.tolist()):
        image = vision.adjust_brightness(pixels[b] / 255, brightness)
        image = vision.adjust_contrast(image, contrast)
        image = vision.adjust_saturation(image, saturation)
        torch.testing.assert_close(found[b] / 255, image, rtol=0, atol=3e-4)


def test_no_jitter_changes_nothing(random):
    pixels = torch.rand(NUM, 3, 2, 2)
    assert color_jitter(pixels, random, strength=0) is pixels


def test_boxes_have_the_described_sizes(random):
    boxes = erase_boxes(random, (60, 90), prob=0.5)
    top, left, bottom, right = boxes.unbind(1)
    erased = (random.uniform(Op.ERASE, (5,))[:, 0] < 0.5).numpy()
    area = ((bottom - top) * (right - left)).numpy()
    assert np.array_equal(area > 0, erased)
    assert 0.4 < erased.mean() < 0.6
    assert boxes.min() == 0
    assert bottom.max() == 60
    assert right.max() <= 90
    shares = area[erased] / (60 * 90)
    assert 0.015 < shares.min() < 0.05
    assert 0.28 < shares.max() < 0.345
    ratio = ((bottom - top) / (right - left).clamp(min=1)).numpy()[erased]
    assert 0.28 < ratio.min() < 0.5
    assert 2.0 < ratio.max() < 3.5


def test_boxes_are_erased_and_nothing_else(random):
    x, fill = torch.ones(NUM, 2, 16, 20), torch.tensor([0.5, -2.0])
    erased = random_erase(x, random, prob=0.5, fill=fill)
    for sample, box in zip(erased, erase_boxes(random, (16, 20), prob=0.5).tolist(), strict=True):
        expected = torch.ones(2, 16, 20)
        expected[:, box[0] : box[2], box[1] : box[3]] = fill[:, None, None]
        assert torch.equal(sample, expected)
    assert random_erase(x, random, prob=0, fill=fill) is x
