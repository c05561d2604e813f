"""Masked token modeling (SeiT++, arXiv 2312.10105, section 3.1; MAGE, arXiv 2211.09117).

An encoder sees some of the patches of a token grid, and a small decoder predicts the codes of the
others. Part of the masked patches never enters the encoder, which saves time; the rest enters as
mask tokens. For each masked patch the decoder starts from the class token's feature, which so
learns to summarize the image.

Differences from the paper: tokens enter as codebook vectors, as in every other run, not by a
learned table, so that the encoder can serve as a classifier's backbone unchanged; order and share
of masking are functions of (seed, epoch, position) and of the step.

Legend: B batch, h w token grid, L patches, m masked, v visible = L − m, s cells along a patch's
side, C codebook dim, K codes, D model dim, E decoder dim.
"""

from dataclasses import dataclass, field

import torch
from timm.layers import build_sincos2d_pos_embed
from timm.models import VisionTransformer
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from seit.errors import UsageError
from seit.models import check_encoder, encode
from seit.pretraining.masks import MaskConfig
from seit.pretraining.patches import CodeHead, Reconstruction, patchify, unpatchify


@dataclass(frozen=True, kw_only=True)
class MtmConfig:
    """Masked token modeling; the defaults are SeiT++'s for a ViT-B.

    Raises:
        UsageError: a value is out of range.
    """

    mask: MaskConfig = field(default_factory=MaskConfig)
    """Number of masked patches."""
    decoder_dim: int = 512
    """Width of the decoder, a multiple of 4 and of `decoder_heads`."""
    decoder_depth: int = 4
    """Blocks of the decoder."""
    decoder_heads: int = 16
    """Attention heads of the decoder."""
    decoder_dropout: float = 0.1
    """Dropout rate of the decoder, 0 to below 1."""
    input_dropout: float = 0.1
    """Dropout rate of embedded tokens, element-wise, 0 to below 1."""
    label_smoothing: float = 0.0
    """Share of the target spread evenly over all codes, 0 to below 1."""
    fixed_positions: bool = True
    """Use fixed sine and cosine positions in the encoder, until fine-tuning."""

    def __post_init__(self) -> None:
        for name in ("decoder_dropout", "input_dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"mtm.{name} is {getattr(self, name)}; expected 0 to below 1")
        for name in ("decoder_dim", "decoder_depth", "decoder_heads"):
            if getattr(self, name) < 1:
                raise UsageError(f"mtm.{name} is {getattr(self, name)}; expected at least 1")
        if self.decoder_dim % 4 or self.decoder_dim % self.decoder_heads:
            raise UsageError(
                f"mtm.decoder_dim is {self.decoder_dim} for {self.decoder_heads} heads; expected a "
                "multiple of 4 and of the heads"
            )


class MaskedTokenModel(nn.Module):
    """Encoder, decoder and head of masked token modeling.

    Args:
        encoder: ViT without a classifier, from `build_encoder`; its position embedding is
            overwritten with ``config.fixed_positions``.
        side: s, of the encoder's stem.
    """

    codebook: Tensor

    def __init__(
        self, encoder: nn.Module, codebook_KC: Tensor, config: MtmConfig, *, side: int
    ) -> None:
        super().__init__()
        self.config = config
        self.side = side
        self.encoder: VisionTransformer = check_encoder(encoder)
        self.num_patches: int = self.encoder.patch_embed.num_patches
        D, E = self.encoder.embed_dim, config.decoder_dim
        self.register_buffer("codebook", codebook_KC.detach().float(), persistent=False)
        self.mask_token = nn.Parameter(torch.zeros(D))
        self.enter = nn.Linear(D, E)
        self.decoder_pos = nn.Parameter(torch.zeros(1, 1 + self.num_patches, E))
        self.decoder = nn.Sequential(
            *(
                Block(
                    E,
                    config.decoder_heads,
                    qkv_bias=True,
                    proj_drop=config.decoder_dropout,
                    attn_drop=config.decoder_dropout,
                )
                for _ in range(config.decoder_depth)
            )
        )
        self.decoder_norm = nn.LayerNorm(E, eps=1e-6)
        self.head = CodeHead(E, codebook_KC, side=side)
        for parameter in (self.mask_token, self.decoder_pos):
            nn.init.trunc_normal_(parameter, std=0.02)
        for part in (self.enter, self.decoder, self.head):
            part.apply(_initialise)
        if config.fixed_positions:
            _fix_positions(self.encoder)

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters without weight decay, for timm's optimizers."""
        inner = {f"encoder.{name}" for name in self.encoder.no_weight_decay()}
        return {*inner, "mask_token", "decoder_pos"}

    @override
    def forward(self, ids_Bhw: Tensor, order_BL: Tensor, num_masked: int) -> Tensor:
        """Return the mean cross-entropy (scalar, float32) of the masked cells.

        Args:
            ids_Bhw: int64 (B, h, w), 0 to K − 1.
            order_BL: int64 (B, L), a permutation of the patches; the first ones are masked.
            num_masked: m, 1 to L.
        """
        logits, targets = self._predict(ids_Bhw, order_BL, num_masked)
        return F.cross_entropy(
            logits.flatten(0, 2).float(),
            targets.flatten(),
            label_smoothing=self.config.label_smoothing,
        )

    def embed(self, ids_Bhw: Tensor) -> Tensor:
        """Return the codebook vectors of ids, float32 (B, C, h, w)."""
        return F.embedding(ids_Bhw, self.codebook).permute(0, 3, 1, 2)

    def reconstruct(self, ids_Bhw: Tensor, order_BL: Tensor, num_masked: int) -> Reconstruction:
        """Predict the masked cells; arguments as in :meth:`forward`."""
        logits, targets_Bms = self._predict(ids_Bhw, order_BL, num_masked)
        loss_Bms = F.cross_entropy(
            logits.flatten(0, 2).float(), targets_Bms.flatten(), reduction="none"
        ).view_as(targets_Bms)
        masked_Bm = order_BL[:, :num_masked, None].expand(-1, -1, self.side**2)
        patches_BLs = patchify(ids_Bhw, self.side)
        predicted = patches_BLs.scatter(1, masked_Bm, logits.argmax(dim=-1))
        is_masked = torch.zeros_like(patches_BLs, dtype=torch.bool).scatter(1, masked_Bm, True)
        size = (ids_Bhw.shape[1], ids_Bhw.shape[2])
        nowhere = torch.zeros_like(ids_Bhw, dtype=torch.bool)
        return Reconstruction(
            unpatchify(predicted, size, fill=ids_Bhw),
            unpatchify(is_masked, size, fill=nowhere),
            loss_Bms.flatten(1).mean(dim=1),
        )

    def _predict(self, ids_Bhw: Tensor, order_BL: Tensor, num_masked: int) -> tuple[Tensor, Tensor]:
        """Return logits (B, m, s², K) and ids (B, m, s²) of the masked cells, in masking order."""
        num_dropped = self.config.mask.num_dropped(self.num_patches)
        masked_BL = torch.zeros_like(order_BL, dtype=torch.bool)
        masked_BL = masked_BL.scatter(1, order_BL[:, :num_masked], True)
        inputs = F.dropout(self.embed(ids_Bhw), self.config.input_dropout, self.training)
        encoded = encode(
            self.encoder,
            inputs,
            keep=order_BL[:, num_dropped:],
            masked=masked_BL,
            mask_token=self.mask_token,
        )
        start_B1E = self.enter(encoded.prefix)[:, None]
        visible_BvE = self.enter(encoded.patches[:, num_masked - num_dropped :])
        x = start_B1E.expand(-1, self.num_patches, -1)
        x = x.scatter(1, _as_index(order_BL[:, num_masked:], visible_BvE), visible_BvE)
        x = torch.cat([start_B1E, x], dim=1) + self.decoder_pos.to(start_B1E.dtype)
        decoded = self.decoder_norm(self.decoder(x))[:, 1:]
        chosen = order_BL[:, :num_masked]
        decoded = decoded.gather(1, chosen[..., None].expand(-1, -1, decoded.shape[-1]))
        targets_BLs = patchify(ids_Bhw, self.side)
        targets = targets_BLs.gather(1, chosen[..., None].expand(-1, -1, targets_BLs.shape[-1]))
        return self.head(decoded), targets


def _as_index(chosen_Bn: Tensor, like_BnE: Tensor) -> Tensor:
    return chosen_Bn[..., None].expand(-1, -1, like_BnE.shape[-1])


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


@torch.no_grad()
def _fix_positions(vit: VisionTransformer) -> None:
    """Set frozen sine and cosine positions; those of prefix tokens are 0."""
    rows, columns = vit.patch_embed.grid_size
    if vit.embed_dim % 4:
        raise UsageError(
            f"sine and cosine positions take a width that is a multiple of 4, not {vit.embed_dim}; "
            "change model.embed_dim or set mtm.fixed_positions to false"
        )
    positions = build_sincos2d_pos_embed([rows, columns], vit.embed_dim)
    learned = vit.pos_embed
    assert learned is not None
    prefix = learned.shape[1] - rows * columns
    learned.copy_(torch.cat([positions.new_zeros(prefix, vit.embed_dim), positions])[None])
    learned.requires_grad_(False)
