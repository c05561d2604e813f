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

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Tensor | None,
        scale: float,
        dropout: float = 0.0,
        norm: nn.Module | None = None,
    ) -> Tensor:
        """Return the attention (B, H, N, E) of queries to tokens and prefix.

        Args:
            q: queries (B, H, N, E).
            k: keys of the tokens (B, H, N, E).
            v: values of the tokens (B, H, N, E).
            mask: mask or bias of the tokens' keys (…, N, N); all queries see the prefix.
            scale: factor of the products of queries and keys.
            dropout: dropout of attention.
            norm: norm of the prefix's keys.
        """
        B, H, _, E = q.shape
        pk, pv = (
            rows_PD.unflatten(1, (H, E)).transpose(0, 1)[None] for rows_PD in self.keys_and_values()
        )
        pk = (pk if norm is None else norm(pk)).to(k.dtype).expand(B, -1, -1, -1)
        pv = pv.to(v.dtype).expand(B, -1, -1, -1)
        wide = None
        if mask is not None:
            value = True if mask.dtype == torch.bool else 0.0
            wide = F.pad(mask, (pk.shape[2], 0), value=value)
        attended: Tensor = F.scaled_dot_product_attention(
            q,
            torch.cat([pk, k], dim=2),
            torch.cat([torch.zeros_like(pv) if self.compensate else pv, v], dim=2),
            attn_mask=wide,
            dropout_p=dropout,
            scale=scale,
        )
        if self.compensate:
            attended = attended + F.scaled_dot_product_attention(
                q, pk, pv, dropout_p=dropout, scale=scale
            )
        return attended


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
        if is_causal:
            attn_mask = torch.ones(N, N, dtype=torch.bool, device=x.device).tril()
        attended = self.prefix.attend(
            q_BHNE,
            k_BHNE,
            v_BHNE,
            mask=attn_mask,
            dropout=self.attn_drop.p if self.training else 0.0,
            scale=self.scale,
            norm=self.k_norm,
        )
        x = self.norm(attended.transpose(1, 2).reshape(B, N, -1))
        if opened is not None:
            x = x * opened
        projected: Tensor = self.proj_drop(self.proj(x))
        return projected


class PrefixSpeechAttention(nn.Module):
    """Attention of a speech model that calls its layers, with ``prefix``; a base for its class."""

    prefix: Prefix

    @override
    def forward(self, hidden_states: Tensor, **given: Any) -> tuple[Tensor, None]:
        """Return (frames (B, N, D), None) for frames (B, N, D) without a mask."""
        assert given.get("attention_mask") is None, "clips of a batch have one length"
        return _attended(self, hidden_states, None), None


class PrefixGatedAttention(nn.Module):
    """WavLM's attention, whose biases of positions the tokens keep, with ``prefix``."""

    prefix: Prefix

    def torch_multi_head_self_attention(
        self, hidden_states: Tensor, attention_mask: Tensor | None, gated_position_bias: Tensor
    ) -> tuple[Tensor, None]:
        """Return (frames (B, N, D), None) for frames (B, N, D) and biases (B · H, N, N)."""
        assert attention_mask is None, "clips of a batch have one length"
        biases = gated_position_bias.unflatten(0, (len(hidden_states), -1))
        return _attended(self, hidden_states, biases), None


def _attended(attention: Any, frames: Tensor, biases: Tensor | None) -> Tensor:
    heads = (attention.num_heads, attention.head_dim)
    q, k, v = (
        layer(frames).unflatten(-1, heads).transpose(1, 2)
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    attended = attention.prefix.attend(q, k, v, mask=biases, scale=attention.scaling).transpose(
        1, 2
    )
    found: Tensor = attention.out_proj(attended.flatten(2))
    return found


_MADE: dict[type[nn.Module], type[nn.Module]] = {Attention: PrefixAttention}


def prefix_class(kind: type[nn.Module]) -> type[nn.Module]:
    """Return the class of attention ``kind`` with a prefix."""
    if kind not in _MADE:
        gated = hasattr(kind, "torch_multi_head_self_attention")
        base = PrefixGatedAttention if gated else PrefixSpeechAttention
        _MADE[kind] = type(f"Prefix{kind.__name__}", (base, kind), {})
    return _MADE[kind]


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
            own: type[nn.Module] = type(attention)
            kinds = (own, prefix_class(own))
            place = Addition(f"{block.name}.{block.attention}", "prefix", kinds=kinds)
            planned.append((place, like(attention, made)))
        return planned
