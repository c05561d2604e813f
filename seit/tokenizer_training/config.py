"""Settings for training a tokenizer."""

import math
from dataclasses import dataclass
from typing import Literal

from seit.errors import UsageError
from seit.tokenizer_training.base import BaseConfig
from seit.tokenizers import MAX_CODES, MEL_CONFIGS, MelConfig

_MAX_DEPTH = 16
_LOSSES = ("l1", "l2", "ssim", "commitment", "adversarial", "classes", "hog", "code_rate")


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig(BaseConfig):
    """Settings in addition to `BaseConfig`; together with the corpus they determine the weights.

    Attributes:
        audio: window length of an audio tokenizer, as in the presets: `1s`, `5s` or `10s`; `none`
            for images.
        size: side of the square input images in pixels, a multiple of 8.
        quantizer: `vq` (codebook of moving averages, with dead codes restarted), `rvq` (residual
            levels of `vq`), `fsq` (Mentzer et al. 2023) or `lfq` (Yu et al. 2023).
        codes: codebook size K of `vq`, `rvq` (each level) and `lfq` (a power of two).
        levels: levels per dimension of `fsq`, each at least 3; K is their product.
        depth: levels of `rvq`, at least 2.
        dim: latent dim C of `vq` and `rvq`; for the others it follows from K.
        encoder_width, encoder_blocks, decoder_width, decoder_blocks: network size.
        crop: side of the training crops in pixels, a multiple of 8; for audio, frames of a crop,
            whole patches.
        scale: range of the log-uniform factor by which images are scaled before cropping, relative
            to a shorter side of `size`; no effect on audio.
        crops_per_image: crops from each decoded image or window.
        ema: decay of the average of the weights, which is what is saved.
        l1: weight of the absolute error.
        l2: weight of the squared error.
        ssim: weight of 1 − MS-SSIM (Wang et al. 2003), a perceptual term without a network.
        commitment: weight of the distance of latents to their codes; `fsq` has none.
        adversarial: weight of a patch discriminator's loss on reconstructions (hinge loss; Esser et
            al. 2021 without their adaptive weight).
        adversarial_start: first step of the discriminator and of its loss.
        discriminator_width: channels of its first layer.
        classes: weight of the cross-entropy of a head that predicts the class of a crop from its
            quantized latents; requires a labeled corpus.
        hog: weight of the squared error of a head that predicts histograms of oriented gradients
            (as Wei et al. 2022) of each patch from its quantized latents.
        code_rate: weight of the estimated nats per code, given the codes before it; makes smaller
            stores that lose detail. Not for `rvq`.
        whitening: whitening of the principal components that initialize the network, 0–1.
        distill_steps: first steps, in which only the encoder learns, to give the latents of the
            tokenizer of `--init-from`, whose encoder may be of another size; its decoder and codes
            are where the other steps start.
        eval_images: images or windows of the val split for measuring the finished tokenizer.

    Raises:
        UsageError: a value is out of range.
    """

    audio: Literal["none", "1s", "5s", "10s"] = "none"
    size: int = 256
    quantizer: Literal["vq", "rvq", "fsq", "lfq"] = "vq"
    codes: int = 1024
    levels: tuple[int, ...] = (8, 5, 5, 5)
    depth: int = 2
    dim: int = 16
    encoder_width: int = 128
    encoder_blocks: int = 4
    decoder_width: int = 160
    decoder_blocks: int = 4
    crop: int = 96
    scale: tuple[float, float] = (0.75, 1.5)
    crops_per_image: int = 4
    ema: float = 0.999
    l1: float = 1.0
    l2: float = 1.0
    ssim: float = 0.1
    commitment: float = 0.25
    adversarial: float = 0.0
    adversarial_start: int = 5_000
    discriminator_width: int = 32
    classes: float = 0.0
    hog: float = 0.0
    code_rate: float = 0.0
    whitening: float = 0.25
    distill_steps: int = 0
    eval_images: int = 256

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_crops()
        self._check_codes()
        if not 0 < self.lr < math.inf or not 0 <= self.ema < 1 or not 0 <= self.whitening <= 1:
            raise UsageError("lr must be above 0, ema 0 to below 1, whitening 0 to 1")
        weights = [getattr(self, name) for name in _LOSSES]
        if any(not 0 <= weight < math.inf for weight in weights) or not any(weights[:3]):
            raise UsageError(
                f"loss weights {dict(zip(_LOSSES, weights, strict=True))}; none is negative, and "
                "l1, l2 or ssim is above 0"
            )

    def _check_counts(self) -> None:
        least = {
            **dict.fromkeys(("dim", "crops_per_image", "batch_size", "steps"), 1),
            **dict.fromkeys(("checkpoint_every", "log_every"), 1),
            **dict.fromkeys(("discriminator_width", "eval_images"), 1),
            **dict.fromkeys(("encoder_width", "decoder_width"), 1),
            **dict.fromkeys(("encoder_blocks", "decoder_blocks"), 0),
            **dict.fromkeys(("warmup_steps", "adversarial_start", "distill_steps", "seed"), 0),
        }
        for name, low in least.items():
            if not low <= getattr(self, name) < 1 << 31:
                raise UsageError(f"{name} is {getattr(self, name)}; expected {low} or more")
        if self.distill_steps > self.steps:
            raise UsageError(
                f"distill_steps is {self.distill_steps}, of {self.steps} steps in all; raise steps "
                "beyond them, so that codes and decoder learn too"
            )
        if self.batch_size % self.crops_per_image:
            raise UsageError("batch_size is a multiple of crops_per_image; change it to one")

    def _check_crops(self) -> None:
        for name in ("size", "crop"):
            side = getattr(self, name)
            if not 16 <= side <= 4096 or side % 8:
                raise UsageError(f"{name} is {side}; expected a multiple of 8 from 16 to 4096")
        low, high = self.scale
        if not 0 < low <= high < math.inf:
            raise UsageError(f"scale is {self.scale}; expected 0 < least ≤ most")
        mel = self.mel
        if mel is not None:
            if self.crop > mel.frames or self.crop % mel.patch[1]:
                raise UsageError(
                    f"crop is {self.crop}; windows of {self.audio} have {mel.frames} frames, and a "
                    f"crop a multiple of {mel.patch[1]} of them"
                )
        elif self.crop > low * self.size:
            raise UsageError(
                f"crops of {self.crop} px do not fit into images of {low * self.size:.0f} px, the "
                "least that scale gives; lower crop or raise scale"
            )

    def _check_codes(self) -> None:
        if self.quantizer == "fsq" and (not self.levels or min(self.levels) < 3):
            raise UsageError(f"levels are {self.levels}; each dimension of fsq needs at least 3")
        if not 2 <= self.num_codes <= MAX_CODES:
            raise UsageError(f"{self.num_codes:,} codes; expected 2 to {MAX_CODES:,}")
        if self.quantizer == "lfq" and self.codes & (self.codes - 1):
            raise UsageError(f"codes is {self.codes}; lfq needs a power of two, such as 1024")
        if self.code_rate and self.quantizer == "rvq":
            raise UsageError(
                "code_rate is above 0; it is for one level of codes, so set it to 0 for rvq"
            )
        if not 2 <= self.depth <= _MAX_DEPTH:
            raise UsageError(f"depth is {self.depth}; expected 2 to {_MAX_DEPTH} levels for rvq")

    @property
    def mel(self) -> MelConfig | None:
        """Shape of the spectrograms; None for images."""
        return MEL_CONFIGS.get(self.audio)

    @property
    def num_codes(self) -> int:
        """K, of each level."""
        return math.prod(self.levels) if self.quantizer == "fsq" else self.codes
