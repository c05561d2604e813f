"""The trained model: the network, its quantizer, and heads used in training only.

Legend: B batch, P planes, Y X height and width.
"""

from typing import NamedTuple

from torch import Tensor, nn
from typing_extensions import override

from seit.tokenizer_training.config import TokenizerConfig
from seit.tokenizer_training.quantizers import Quantized, make_quantizer
from seit.tokenizer_training.rate import RateHead
from seit.tokenizer_training.semantics import ClassHead, HogHead
from seit.tokenizers import Autoencoder, NetworkConfig

IMAGE_PLANES, IMAGE_PATCH = 3, (8, 8)


class Rebuilt(NamedTuple):
    """Output of the model for planes."""

    planes: Tensor
    """Reconstruction float32 (B, P, Y, X), −1…1."""
    quantized: Quantized
    encoded: Tensor
    """Latents before quantization float32 (B, C, H, W)."""


class Model(nn.Module):
    """Planes → codes → planes, with heads on the codes."""

    def __init__(self, config: TokenizerConfig, *, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.quantizer = make_quantizer(config)
        mel = config.mel
        self.network = Autoencoder(
            NetworkConfig(
                planes=IMAGE_PLANES if mel is None else 1,
                patch=IMAGE_PATCH if mel is None else mel.patch,
                dim=self.quantizer.dim,
                encoder_width=config.encoder_width,
                encoder_blocks=config.encoder_blocks,
                decoder_width=config.decoder_width,
                decoder_blocks=config.decoder_blocks,
            )
        )
        dim, planes = self.quantizer.dim, self.network.config.planes
        self.class_head = ClassHead(dim, num_classes) if config.classes else None
        self.hog_head = HogHead(dim, planes) if config.hog else None
        self.rate_head = RateHead(dim, config.num_codes) if config.code_rate else None

    @override
    def forward(self, planes: Tensor) -> Rebuilt:
        """Encode, quantize and decode planes (B, P, Y, X), −1…1."""
        latents = self.network.encoder(planes)
        encoded = latents.float()
        quantized = self.quantizer(encoded)
        return Rebuilt(self.network.decoder(quantized.latents).float(), quantized, encoded)

    def head_losses(self, rebuilt: Rebuilt, planes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the weighted losses of the active heads, by name."""
        losses: dict[str, Tensor] = {}
        latents = rebuilt.quantized.latents.float()
        if self.class_head is not None:
            losses["class_loss"] = self.config.classes * self.class_head.loss(latents, labels)
        if self.hog_head is not None:
            cell = self.network.config.patch
            losses["hog_loss"] = self.config.hog * self.hog_head.loss(
                latents, planes / 2 + 0.5, cell
            )
        if self.rate_head is not None:
            losses["rate_loss"] = self.config.code_rate * self.rate_head.loss(
                latents, rebuilt.encoded, rebuilt.quantized.ids[:, 0], self.quantizer.codebook()
            )
        return losses
