"""How a learned tokenizer is trained."""

import math
from dataclasses import dataclass
from typing import Literal

from seit.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Settings of a training; together with the corpus they give the weights.

    Attributes:
        size: side of the square images that it will take, in pixels, a multiple of 8.
        quantizer: `vq` (a codebook moved by averages, dead codes restarted), `fsq` (Mentzer et al.
            2023) or `lfq` (Yu et al. 2023).
        codes: codebook size K of `vq` and `lfq` (a power of two there).
        levels: levels per dimension of `fsq`; K is their product.
        dim: latent dim C of `vq`; the others' follows from K.
        encoder_width, encoder_blocks, decoder_width, decoder_blocks: of the network.
        crop: side of the training crops in pixels, a multiple of 8.
        scale: crops are taken from images whose shorter side is `size` times a factor from this
            range, uniform in its logarithm.
        crops_per_image: crops from each decoded image.
        batch_size: crops a step.
        steps: of AdamW.
        lr: peak learning rate; a linear warm-up of `warmup_steps` and a cosine to 0 around it.
        warmup_steps: of the learning rate.
        ema: decay of the average of the weights, which is what is saved.
        l1: weight of the absolute error.
        l2: weight of the squared error.
        ssim: weight of 1 − MS-SSIM (Wang et al. 2003), the perceptual term that needs no network.
        commitment: weight of the distance of latents to their codes.
        whitening: of the principal components that the network starts from, 0–1.
        checkpoint_every: steps between checkpoints.
        seed: of crops and weights.
        device: cpu, cuda, cuda:1, mps or auto.

    Raises:
        UsageError: for a value outside its range.
    """

    size: int = 256
    quantizer: Literal["vq", "fsq", "lfq"] = "vq"
    codes: int = 1024
    levels: tuple[int, ...] = (8, 5, 5, 5)
    dim: int = 16
    encoder_width: int = 128
    encoder_blocks: int = 4
    decoder_width: int = 160
    decoder_blocks: int = 4
    crop: int = 96
    scale: tuple[float, float] = (0.75, 1.5)
    crops_per_image: int = 4
    batch_size: int = 16
    steps: int = 20_000
    lr: float = 1e-3
    warmup_steps: int = 200
    ema: float = 0.999
    l1: float = 1.0
    l2: float = 1.0
    ssim: float = 0.1
    commitment: float = 0.25
    whitening: float = 0.25
    checkpoint_every: int = 500
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        positive = ("codes", "dim", "crops_per_image", "batch_size", "steps", "checkpoint_every")
        for name in positive:
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected at least 1: raise it")
        for name in ("size", "crop"):
            if getattr(self, name) < 8 or getattr(self, name) % 8:
                raise UsageError(f"{name} is {getattr(self, name)}; expected a multiple of 8")
        low, high = self.scale
        if not 0 < low <= high < math.inf:
            raise UsageError(f"scale is {self.scale}; expected 0 < least ≤ most")
        if self.crop > low * self.size:
            raise UsageError(
                f"crops of {self.crop} px do not fit into images of {low * self.size:.0f} px, the "
                "least that scale gives; lower crop or raise scale"
            )
        if not 0 < self.lr < math.inf or not 0 <= self.ema < 1 or not 0 <= self.whitening <= 1:
            raise UsageError("lr is above 0, ema from 0 to below 1, whitening from 0 to 1")
        weights = (self.l1, self.l2, self.ssim, self.commitment)
        if any(not 0 <= weight < math.inf for weight in weights) or not any(weights[:3]):
            raise UsageError(f"loss weights {weights}; none is negative, l1, l2 or ssim is above 0")
        if self.quantizer == "lfq" and self.codes & (self.codes - 1):
            raise UsageError(f"codes is {self.codes}; lfq has a power of two, such as 1024")
        if self.batch_size % self.crops_per_image:
            raise UsageError("batch_size is a multiple of crops_per_image; make it one")
