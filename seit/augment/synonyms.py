"""Token synonyms: similar codes, and the replacement of some tokens by theirs.

Legend: B batch, H W grid, K codes, C codebook dim, S synonyms per code.
"""

import torch
from torch import Tensor

from seit.augment.philox import Op
from seit.augment.random import SampleRandom
from seit.errors import UsageError

_CHUNK_DISTANCES = 1 << 24


def nearest_codes(codebook: Tensor, *, top: int = 5) -> Tensor:
    """Find the nearest other codes of every code by Euclidean distance, nearest first.

    If all codes have one length, like ViT-VQGAN's on its unit sphere (SeiT, arXiv 2303.11114),
    these are the codes of the largest cosine. Otherwise the cosine would pair a shade with one
    twice as bright.

    Computed on the CPU in float64, so that all devices agree on near ties. Costs K²·C
    multiplications and at most 128 MiB at a time: under a second for K = 8192.

    Args:
        codebook: (K, C) floating point.
        top: S, number of codes; 1 to K − 1.

    Returns:
        (K, S) int64, 0 to K − 1, on the codebook's device; row k never contains k.

    Raises:
        UsageError: the codebook is not (K, C), or ``top`` is outside 1 to K − 1.
    """
    if codebook.ndim != 2:
        raise UsageError(
            f"the codebook is {tuple(codebook.shape)}; expected (K, C): synonyms of residual "
            "codebooks are found level by level, pass one level"
        )
    K = codebook.shape[0]
    if not 1 <= top < K:
        raise UsageError(
            f"{top} synonyms were asked for of a codebook of {K} codes; expected 1 to {K - 1}: "
            "lower synonym_top"
        )
    codes = codebook.detach().to("cpu", torch.float64)
    half_norms = codes.square().sum(dim=1) / 2
    table = torch.empty((K, top), dtype=torch.int64)
    step = max(1, _CHUNK_DISTANCES // K)
    for start in range(0, K, step):
        # argmin |a − b|² = argmin |b|²/2 − a·b
        distances = half_norms - codes[start : start + step] @ codes.T
        own = torch.arange(distances.shape[0])
        distances[own, own + start] = torch.inf
        table[start : start + step] = distances.topk(top, dim=1, largest=False).indices
    return table.to(codebook.device)


def replace_synonyms(
    tokens: Tensor,
    table: Tensor,
    random: SampleRandom,
    *,
    rate: float,
    selected: Tensor | None = None,
) -> Tensor:
    """Replace each token, with probability ``rate``, by one of its synonyms.

    ReplaceSynonym of SeiT (arXiv 2303.11114), where ``rate`` is 0.25 and a code has 5 synonyms,
    all equally likely.

    Args:
        tokens: (B, H, W) int64, 0 to K − 1.
        table: (K, S) int64, from :func:`nearest_codes`.
        random: the samples' draws; one uniform number per token.
        rate: 0–1.
        selected: (B,) bool, the samples to edit; None for all.

    Returns:
        (B, H, W) int64.
    """
    if rate == 0:
        return tokens
    S = table.shape[1]
    u = random.uniform(Op.SYNONYM, (tokens.shape[1], tokens.shape[2]))
    replaced = u < rate
    if selected is not None:
        replaced &= selected[:, None, None]
    # Given u < rate, u / rate is again uniform: one draw decides both whether and which.
    choice = (u * (S / rate)).to(torch.int64).clamp_(max=S - 1)
    return torch.where(replaced, table.flatten()[tokens * S + choice], tokens)
