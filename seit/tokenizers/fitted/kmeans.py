"""Lloyd's k-means on one device, deterministic, with dead centers restarted.

Legend: N points, K centers, C dims.
"""

from functools import partial

import torch
from torch import Tensor

_CPU_CHUNK = 1024
"""Points at a time on a CPU: their distances to 1,024 centers fit in the cache (4 MB)."""
_GPU_CHUNK = 65_536


def assign(points_NC: Tensor, centres_KC: Tensor) -> Tensor:
    """Return the nearest center (squared Euclidean distance) of each point: int64 (N,)."""
    half_norms_K = centres_KC.square().sum(1) / 2
    on_cpu = points_NC.device.type == "cpu"
    least = _argmin_on_cpu if on_cpu else partial(torch.argmin, dim=1)
    return torch.cat(
        [
            least(torch.addmm(half_norms_K, chunk, centres_KC.T, alpha=-1))
            for chunk in points_NC.split(_CPU_CHUNK if on_cpu else _GPU_CHUNK)
        ]
    )


def _argmin_on_cpu(scores_NK: Tensor) -> Tensor:
    """Compute ``argmin(1)`` by NumPy, which is ten times as fast."""
    return torch.from_numpy(scores_NK.numpy().argmin(1))


def fit_kmeans(
    points_NC: Tensor, num_centres: int, *, seed: int = 0, iterations: int = 20
) -> Tensor:
    """Cluster float32 points (N, C) into centers (K, C), N ≥ K, most used first (helps coders).

    Starts from distinct points drawn by ``seed``. After each round, centers without points are
    moved next to the busiest ones, so that all K are used. Costs about ``iterations · N · K · C``
    multiply-adds.
    """
    num_points = len(points_NC)
    assert num_points >= num_centres, "fewer points than centers"
    generator = torch.Generator().manual_seed(seed)
    start = torch.randperm(num_points, generator=generator)[:num_centres]
    centres_KC = points_NC[start.to(points_NC.device)].clone()
    spread_C = points_NC.std(0, correction=0)
    for iteration in range(iterations):
        nearest_N = assign(points_NC, centres_KC)
        sums_KC = torch.zeros_like(centres_KC).index_add_(0, nearest_N, points_NC)
        counts_K = torch.bincount(nearest_N, minlength=num_centres)
        used_K = counts_K > 0
        centres_KC = torch.where(
            used_K[:, None], sums_KC / counts_K.clamp(min=1)[:, None], centres_KC
        )
        num_dead = int((~used_K).sum())
        if num_dead and iteration + 1 < iterations:
            busiest = counts_K.argsort(descending=True, stable=True)[:num_dead]
            jitter = torch.randn(num_dead, points_NC.shape[1], generator=generator)
            shifted = centres_KC[busiest] + 0.05 * spread_C * jitter.to(points_NC.device)
            centres_KC[~used_K] = shifted
    counts_K = torch.bincount(assign(points_NC, centres_KC), minlength=num_centres)
    return centres_KC[counts_K.argsort(descending=True, stable=True)]
