"""Contrastive loss between features of two views, and its projection head.

Legend: B batch of a rank, N batch of all ranks, D model dim, E dim of projections.
"""

import torch
from torch import Tensor, distributed as dist, nn
from torch.nn import functional as F
from typing_extensions import override

from seit.errors import UsageError


def nt_xent(query_BE: Tensor, key_BE: Tensor, *, temperature: float) -> Tensor:
    """Return the mean contrastive loss (scalar, float32) between queries and keys.

    With unit vectors q and k and temperature τ: 2τ · −log(exp(q·k⁺/τ) / Σ exp(q·k/τ)), where k⁺ is
    the key of the same sample and the sum is over the keys of all samples of all ranks, as in SiT
    (arXiv 2104.03602); the factor 2τ is MoCo v3's (arXiv 2104.02057). Keys have no gradient, and
    other queries are not negatives. The mean over ranks equals the loss of one rank on the whole
    batch. Computed in float32 even under autocast.

    Args:
        query_BE: (B, E) floating point; B is equal on all ranks.
        key_BE: (B, E) floating point, in the same order of samples.
        temperature: τ, above 0.
    """
    with torch.autocast(query_BE.device.type, enabled=False):
        query_BE = F.normalize(query_BE.float(), dim=1)
        keys_NE, first = _gather(F.normalize(key_BE.detach().float(), dim=1))
        logits_BN = query_BE @ keys_NE.T / temperature
        own_B = torch.arange(first, first + len(query_BE), device=query_BE.device)
        return 2 * temperature * F.cross_entropy(logits_BN, own_B)


def _gather(x_BE: Tensor) -> tuple[Tensor, int]:
    """Return the rows of all ranks (N, E), without gradients, and the start of this rank's."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return x_BE, 0
    all_NE = x_BE.new_empty(dist.get_world_size() * len(x_BE), x_BE.shape[1])
    dist.all_gather_into_tensor(all_NE, x_BE.contiguous())
    return all_NE, dist.get_rank() * len(x_BE)


class ProjectionHead(nn.Module):
    """Features (B, D) → projections (B, E) for the contrastive loss.

    Three linear layers, each followed by batch norm, with GELU between them; the last norm has no
    affine parameters (as in SiT, after MoCo v3).
    """

    def __init__(self, dim: int, *, hidden_dim: int = 4096, out_dim: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden_dim, bias=False),
            nn.BatchNorm1d(hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, hidden_dim, bias=False),
            nn.BatchNorm1d(hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, out_dim, bias=False),
            nn.BatchNorm1d(out_dim, affine=False),
        )

    @override
    def forward(self, features_BD: Tensor) -> Tensor:
        """Project with batch statistics in training; raise UsageError for a batch of one sample."""
        if self.training and len(features_BD) < 2:
            raise UsageError(
                "the contrastive task got a batch of one sample; raise data.batch_size, or lower "
                "optim.accumulate or the number of ranks"
            )
        projected: Tensor = self.layers(features_BD)
        return projected
