"""Rate of codes in the loss: an estimate of the bits that the context coder will need.

After Ballé et al., "End-to-end Optimized Image Compression" (2017), with the soft assignments of
Agustsson et al., "Soft-to-Hard Vector Quantization for End-to-End Learning Compressible
Representations" (2017): a small causal network predicts each code from those before it in raster
order, and the encoder is trained towards codes that are predicted well.

Legend: B batch, C latent dim, H W grid, K codes, N = B·H·W.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

_HIDDEN = 128
_REACH = 2
_SOFTNESS = 0.25
"""Temperature of soft assignments, in mean squared distances of latents to their codes."""


class RateHead(nn.Module):
    """Quantized latents (B, C, H, W) → log-probabilities (N, K) of the code at each place.

    A place sees the codes of two rows above it and the two to its left.
    """

    before: Tensor

    def __init__(self, dim: int, num_codes: int) -> None:
        super().__init__()
        side = 2 * _REACH + 1
        self.context = nn.Conv2d(dim, _HIDDEN, side, padding=_REACH)
        self.hidden = nn.Conv2d(_HIDDEN, _HIDDEN, 1)
        self.logits = nn.Conv2d(_HIDDEN, num_codes, 1)
        before = torch.arange(side * side) < side * side // 2
        self.register_buffer("before", before.view(side, side).float(), persistent=False)

    @override
    def forward(self, latents: Tensor) -> Tensor:
        weight = self.context.weight * self.before
        seen = functional.conv2d(latents, weight, self.context.bias, padding=_REACH)
        hidden = functional.gelu(self.hidden(functional.gelu(seen)))
        logits: Tensor = self.logits(hidden)
        return logits.permute(0, 2, 3, 1).flatten(0, 2).log_softmax(1)

    def loss(self, quantized: Tensor, encoded: Tensor, ids: Tensor, codebook: Tensor) -> Tensor:
        """Return the mean rate in nats per code.

        Its value is that of the chosen codes. Its gradient trains this head towards them, and the
        encoder through soft assignments and through the codes that it predicts from.

        Args:
            quantized: codes with straight-through gradients (B, C, H, W).
            encoded: latents before quantization (B, C, H, W).
            ids: chosen codes int64 (B, H, W).
            codebook: codes (K, C).
        """
        log_p_NK: Tensor = self(quantized)
        chosen_N = ids.flatten()
        encoded_NC = encoded.permute(0, 2, 3, 1).flatten(0, 2)
        distance_NK = (
            codebook.square().sum(1)
            - 2 * encoded_NC @ codebook.T
            + encoded_NC.square().sum(1, keepdim=True)
        )
        error = distance_NK.detach().gather(1, chosen_N[:, None]).mean().clamp(min=1e-12)
        soft_NK = (-distance_NK / (_SOFTNESS * error)).softmax(1)
        hard = -log_p_NK.gather(1, chosen_N[:, None]).mean()
        soft = -(soft_NK * log_p_NK.detach()).sum(1).mean()
        rate: Tensor = hard + soft - soft.detach()
        return rate
