"""`taesd`: a tiny autoencoder of continuous latents, with a codebook fitted on top.

The TAESD family (Bohan, "Tiny AutoEncoder for Stable Diffusion", 2023) has no codes of its own:
k-means on the latents of a corpus makes a codebook, specific to that corpus. Both the layout of
taesd's own two files and that of diffusers' ``AutoencoderTiny`` are read; the latter is kept.

Legend: B images, S image side, H W grid, E channels, C latent dim, N latents.
"""

import re
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from seit.tokenizers.fitted.base import check_codes, choose_points
from seit.tokenizers.fitted.kmeans import fit_kmeans
from seit.tokenizers.published.base import ImageNetwork, PublishedTokenizer
from seit.tokenizers.published.checkpoints import StateDict

_MAGNITUDE = 3.0
_MAX_LAYERS = 64


class Block(nn.Module):
    """Three 3×3 convolutions; the input is added, through 1×1 if its width differs; ReLU."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(width_in, width_out, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width_out, width_out, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width_out, width_out, 3, padding=1),
        )
        if width_in != width_out:
            self.skip = nn.Conv2d(width_in, width_out, 1, bias=False)

    @override
    def forward(self, x_BEHW: Tensor) -> Tensor:
        skipped = self.skip(x_BEHW) if hasattr(self, "skip") else x_BEHW
        return functional.relu(self.conv(x_BEHW) + skipped)


class Half(nn.Module):
    """Encoder or decoder: convolutions and blocks in the order of their numbers.

    A convolution without bias halves the sides in the encoder, and follows an upsampling in the
    decoder. Numbers without weights are the ReLU and the upsamplings of the decoder.
    """

    def __init__(self, weights: StateDict, name: str) -> None:
        super().__init__()
        prefix = f"{name}.layers"
        numbers = _numbers(weights, prefix)
        layers: dict[str, nn.Module] = {}
        self.steps = 0
        self.is_encoder = name == "encoder"
        width = self.width_in = weights.shape(f"{prefix}.{numbers[0]}.weight", 4)[1]
        for number in numbers:
            here = f"{prefix}.{number}"
            if weights.holds(f"{here}.conv"):
                out = weights.shape(f"{here}.conv.0.weight", 4)[0]
                layers[str(number)] = Block(width, out)
            else:
                out = weights.shape(f"{here}.weight", 4)[0]
                has_bias = f"{here}.bias" in weights
                self.steps += not has_bias
                stride = 1 if has_bias or not self.is_encoder else 2
                layers[str(number)] = nn.Conv2d(
                    width, out, 3, padding=1, stride=stride, bias=has_bias
                )
            width = out
        self.width_out = width
        self.layers = nn.ModuleDict(layers)

    @override
    def forward(self, x_BEHW: Tensor) -> Tensor:
        is_first = True
        for layer in self.layers.values():
            is_step = isinstance(layer, nn.Conv2d) and layer.bias is None
            if is_step and not self.is_encoder:
                x_BEHW = functional.interpolate(x_BEHW, scale_factor=2.0, mode="nearest")
            x_BEHW = layer(x_BEHW)
            if is_first and not self.is_encoder:
                x_BEHW = functional.relu(x_BEHW)
            is_first = False
        return x_BEHW


def _numbers(weights: StateDict, prefix: str) -> list[int]:
    """Return the numbers of the layers with weights; gaps must be where the family has them.

    Raises:
        UsageError: they are elsewhere, or there are too many layers.
    """
    found = {key[len(prefix) + 1 :].split(".", 1)[0] for key in weights if key.startswith(prefix)}
    if not found or not all(re.fullmatch(r"\d{1,3}", text) for text in found):
        raise weights.refusal(f"it lacks {prefix}.0, {prefix}.1 …")
    numbers = sorted(map(int, found))
    if len(numbers) > _MAX_LAYERS:
        raise weights.refusal(f"it has {len(numbers)} layers; at most {_MAX_LAYERS} are known")
    steps = [
        number
        for number in numbers
        if f"{prefix}.{number}.weight" in weights and f"{prefix}.{number}.bias" not in weights
    ]
    gaps = [] if prefix.startswith("encoder") else [1, *(number - 1 for number in steps)]
    if sorted({*numbers, *gaps}) != list(range(numbers[-1] + 1)) or set(numbers) & set(gaps):
        raise weights.refusal(f"the layers of its {prefix} are not those of TAESD")
    return numbers


class TaesdNetwork(ImageNetwork):
    """Autoencoder from [0, 1] to [0, 1]; latents are softly clipped before decoding."""

    def __init__(self, weights: StateDict) -> None:
        super().__init__(weights)
        self.encoder = Half(weights, "encoder")
        self.decoder = Half(weights, "decoder")
        if self.encoder.steps != self.decoder.steps:
            raise weights.refusal("its encoder and decoder change the resolution differently")
        self.patch = 1 << self.encoder.steps
        self.dim = self.encoder.width_out
        if (self.encoder.width_in, self.decoder.width_out) != (3, 3):
            raise weights.refusal("it is not for three colors")
        if self.decoder.width_in != self.dim:
            raise weights.refusal("its decoder takes other latents than its encoder makes")

    @override
    def synthesise(self, latents: Tensor) -> Tensor:
        planes: Tensor = self.decoder(torch.tanh(latents / _MAGNITUDE) * _MAGNITUDE)
        return planes


class TaesdTokenizer(PublishedTokenizer):
    """Centers of k-means on the latents of the TAESD family; see the module's docstring."""

    name: ClassVar[str] = "taesd"
    network_class: ClassVar[type[ImageNetwork]] = TaesdNetwork
    lowest: ClassVar[float] = 0.0
    published_resize: ClassVar[str] = "none: any multiple of the patch"

    @classmethod
    def fit(
        cls, weights: StateDict, images: Tensor, *, num_codes: int = 1024, seed: int = 0
    ) -> Self:
        """Build the network of a checkpoint and fit a codebook on images uint8 (B, S, S, 3).

        Uses at most 131,072 of their latents.

        Raises:
            UsageError: it is not such a checkpoint, or there are too few images.
        """
        network = TaesdNetwork.of(in_diffusers_layout(weights))
        check_codes(num_codes)
        placeholder = torch.zeros(2, network.dim)
        unfitted = cls.assemble(placeholder, network, size=images.shape[1])
        latents_NC = unfitted.latents(images)
        chosen = choose_points(
            len(images),
            per_input=unfitted.grid[0] * unfitted.grid[1],
            num_codes=num_codes,
            seed=seed,
            what="images",
        )
        codebook = fit_kmeans(latents_NC[chosen], num_codes, seed=seed)
        return cls.assemble(codebook, network, size=images.shape[1])

    @torch.no_grad()
    def latents(self, images: Tensor) -> Tensor:
        """Compute the latents (N, C) of images uint8 (B, S, S, 3), image by image."""
        parts = [self.network.analyse(self._to_planes(image[None])) for image in images]
        return torch.cat([part.permute(0, 2, 3, 1).flatten(0, 2) for part in parts])


def in_diffusers_layout(weights: StateDict) -> StateDict:
    """Rename to diffusers' layout; taesd counts the clipping before the decoder as layer 0."""
    if weights.holds("encoder.layers"):
        return weights

    def rename(key: str) -> str:
        match = re.fullmatch(r"(encoder|decoder)\.(\d{1,3})\.(.+)", key)
        if match is None:
            return key
        number = int(match[2]) - (match[1] == "decoder")
        return f"{match[1]}.layers.{number}.{match[3]}"

    return weights.renamed(rename)
