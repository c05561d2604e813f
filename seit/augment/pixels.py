"""The same crops, flips, CutMix and Mixup for pixels.

Legend: B batch, H W image, h w cropped image.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from seit.augment.base import Augmented, CropAndMix, sample_random
from seit.augment.config import AugmentConfig
from seit.augment.crop import center_crop, random_crop_boxes
from seit.augment.erase import random_erase
from seit.augment.flip import random_flip
from seit.augment.jitter import color_jitter
from seit.augment.random import SampleRandom

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class PixelAugment(CropAndMix):
    """Pixels → augmented, normalized pixels, for the baseline that tokens are compared with.

    Random resized crop, horizontal flip (``pixel_flip_prob``), color jitter and random erasing
    (``jitter``, ``erase_prob``), CutMix and Mixup, with the same draws as :class:`TokenAugment`;
    the rest is for tokens and does not apply. Crops are resized with antialiasing in uint8, one
    after the other as in torchvision's RandomResizedCrop: on CPUs that is several times faster than
    batched matrices, which pay off on small token grids only.

    Args:
        size: (H, W) of the stored images.
        config: the augmentations.

    Raises:
        UsageError: the crop is larger than the images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: tuple[int, int], config: AugmentConfig) -> None:
        super().__init__(size, 3, config)
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            scaled = torch.tensor(values).view(3, 1, 1) * 255
            self.register_buffer(name, scaled, persistent=False)

    def forward(
        self,
        pixels: Tensor,
        labels: Tensor,
        *,
        positions: Tensor,
        seed: int,
        epoch: int,
        partner: Tensor | None = None,
    ) -> Augmented:
        """Augment a training batch.

        Args:
            pixels: (B, 3, H, W) uint8, 0–255.
            labels: (B,) int64.
            positions: (B,) int64, each sample's global position in the epoch's order.
            seed: 0 to 2⁶⁴ − 1.
            epoch: 0 to 2³² − 1.
            partner: as in :meth:`TokenAugment.forward`.

        Returns:
            Inputs, both labels and their weights.

        Raises:
            UsageError: pixels have another size, or positions are not (B,).
        """
        self.check_batch(pixels, (3, *self.grid))
        random = sample_random(pixels, positions, seed, epoch)
        x = random_flip(pixels, random, prob=self.config.pixel_flip_prob)
        x = self._resized_crops(x, random).to(torch.float32)
        x = color_jitter(x, random, strength=self.config.jitter)
        x = self._normalise_(x)
        x = random_erase(x, random, prob=self.config.erase_prob, fill=x.new_zeros(()))
        return self.mix(x, labels, random, partner)

    def evaluate(self, pixels: Tensor) -> Tensor:
        """Return the center of every image, normalized.

        Args:
            pixels: (B, 3, H, W) uint8, 0–255.

        Returns:
            (B, 3, h, w) float32.

        Raises:
            UsageError: pixels have another size.
        """
        self.check_batch(pixels, (3, *self.grid))
        x = center_crop(pixels, self.output_size).to(torch.float32)
        return self._normalise_(x).contiguous()

    def _resized_crops(self, x: Tensor, random: SampleRandom) -> Tensor:
        """Crop and resize (B, 3, H, W) uint8 → (B, 3, h, w) uint8."""
        config = self.config
        boxes = random_crop_boxes(
            random, self.grid, scale=config.crop_scale, ratio=config.crop_ratio
        )
        out = torch.empty(len(x), 3, *self.output_size, dtype=x.dtype, device=x.device)
        for sample, (top, left, height, width) in enumerate(torch.stack(boxes, 1).tolist()):
            crop = x[sample, None, :, top : top + height, left : left + width]
            if x.device.type != "cpu":
                crop = crop.float()
            resized = F.interpolate(
                crop, size=self.output_size, mode=config.interpolation, antialias=True
            )
            out[sample] = resized[0] if crop.dtype == x.dtype else resized[0].round().clamp(0, 255)
        return out

    def _normalise_(self, x: Tensor) -> Tensor:
        return x.sub_(self.mean).div_(self.std)
