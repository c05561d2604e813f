"""Prefixes: learned keys and values of attention (Li and Liang, arXiv 2101.00190).

Legend: B batch, N tokens, P prefix length, D dim of attention, H heads, E dim of a head.
"""

from typing import Any

import torch
from timm.layers import Attention
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from seit.models.tuning.base import Addition, Tuning, like
from seit.models.tuning.blocks import find_attention, first_blocks, transformer_blocks

_LARGEST = 0.01
"""Upper bound of the initial keys and values, uniform from 0."""


class Prefix(nn.Module):
    """Keys and values (P, D) shared by all samples.

    Args:
        length: P.
        dim: D.
        learn_scale: whether to multiply each by a learned number that starts at 1.
        compensate: see `PrefixAttention`.
    """

    def __init__(self, length: int, dim: int, *, learn_scale: bool, compensate: bool) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.empty(length, dim).uniform_(0, _LARGEST))
        self.v = nn.Parameter(torch.empty(length, dim).uniform_(0, _LARGEST))
        self.scale_k = nn.Parameter(torch.ones(())) if learn_scale else None
        self.scale_v = nn.Parameter(torch.ones(())) if learn_scale else None
        self.compensate = compensate

    def keys_and_values(self) -> tuple[Tensor, Tensor]:
        """Return both (P, D), times their scales."""
        k_PD = self.k if self.scale_k is None else self.k * self.scale_k
        v_PD = self.v if self.scale_v is None else self.v * self.scale_v
        return k_PD, v_PD


class PrefixAttention(Attention):
    """timm's attention, with the keys and values of ``prefix`` added.

    By default they compete with those of the tokens. With compensation (LAE, arXiv 2303.10070) the
    prefix adds its own attention in full, and the tokens keep the rest of theirs:

        softmax(q P_kᵀ) P_v + (1 − λ) softmax(q Kᵀ) V,  λ the share of attention to the prefix

    The second term is attention over [P_k; K] with values [0; V], so each term is one fused call
    and no N × N matrix is stored. As in LAE, the prefix supplies keys before heads are split, so
    that ``k_norm`` applies to them.
    """

    prefix: Prefix

    @override
    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Return tokens (B, N, D) for tokens (B, N, D), with the arguments of timm's attention."""
        B, N, _ = x.shape
        gate = getattr(self, "gate", None)
        opened = gate(x).sigmoid() if gate is not None else None
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q_BHNE, k_BHNE, v_BHNE = qkv.unbind(0)
        q_BHNE, k_BHNE = self.q_norm(q_BHNE), self.k_norm(k_BHNE)
        pk_PD, pv_PD = self.prefix.keys_and_values()
        pk_BHPE = self.k_norm(self._heads(pk_PD)).to(k_BHNE.dtype).expand(B, -1, -1, -1)
        pv_BHPE = self._heads(pv_PD).to(v_BHNE.dtype).expand(B, -1, -1, -1)
        compensates = self.prefix.compensate
        attended = self._attend(
            q_BHNE,
            torch.cat([pk_BHPE, k_BHNE], dim=2),
            torch.cat([torch.zeros_like(pv_BHPE) if compensates else pv_BHPE, v_BHNE], dim=2),
            _widened(attn_mask, len(pk_PD), q_BHNE, is_causal=is_causal),
        )
        if compensates:
            attended = attended + self._attend(q_BHNE, pk_BHPE, pv_BHPE, None)
        x = self.norm(attended.transpose(1, 2).reshape(B, N, -1))
        if opened is not None:
            x = x * opened
        projected: Tensor = self.proj_drop(self.proj(x))
        return projected

    def _heads(self, rows_PD: Tensor) -> Tensor:
        """Reshape (P, D) → (1, H, P, E)."""
        heads_HPE: Tensor = rows_PD.unflatten(1, (self.num_heads, self.head_dim)).transpose(0, 1)
        return heads_HPE[None]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        dropped = self.attn_drop.p if self.training else 0.0
        attended: Tensor = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropped, scale=self.scale
        )
        return attended


def _widened(mask: Tensor | None, length: int, q: Tensor, *, is_causal: bool) -> Tensor | None:
    """Return a mask of keys, extended by a prefix that all queries see."""
    if is_causal:
        mask = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril()
    if mask is None:
        return None
    return F.pad(mask, (length, 0), value=True if mask.dtype == torch.bool else 0.0)


class PrefixTuning(Tuning):
    """Learned keys and values in the attention of each block."""

    size_setting = "length"

    @override
    def plan(self, model: nn.Module) -> list[tuple[Addition, nn.Module | nn.Parameter]]:
        config = self.config
        planned: list[tuple[Addition, nn.Module | nn.Parameter]] = []
        for block in first_blocks(transformer_blocks(model), config.num_blocks, model):
            attention: Any = find_attention(block)
            made = Prefix(
                config.length,
                attention.num_heads * attention.head_dim,
                learn_scale=config.learn_scale,
                compensate=config.compensate,
            )
            kinds = (Attention, PrefixAttention)
            place = Addition(f"{block[0]}.attn", "prefix", kinds=kinds)
            planned.append((place, like(attention, made)))
        return planned
