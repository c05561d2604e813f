"""Outputs of the frozen convolutions of a speech model, kept in memory from the first pass on.

Legend: B batch, T samples, C channels, F frames, D features.
"""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor


class StemCache:
    """Outputs by waveform, up to a number of bytes; clips that do not fit are computed each time.

    Each clip passes alone, so that results do not depend on the batch in which it came first: an
    interrupted run resumes to the same weights. Values stay as computed, on the CPU.

    Args:
        max_bytes: bytes of all kept outputs.

    Attributes:
        num_bytes: bytes kept.
        hits, misses: clips found and computed.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: dict[bytes, Tensor] = {}
        self.num_bytes = self.hits = self.misses = 0

    @torch.inference_mode(mode=False)  # what an evaluation computes first, training takes
    @torch.no_grad()
    def outputs(self, waves: Tensor, stem: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the outputs (B, …) of frozen layers for waveforms float32 (B, T)."""
        return torch.cat([self._of(wave, stem) for wave in waves])

    def _of(self, wave: Tensor, stem: Callable[[Tensor], Tensor]) -> Tensor:
        key = hashlib.sha256(wave.cpu().numpy().tobytes()).digest()
        kept = self._kept.get(key)
        if kept is not None:
            self.hits += 1
            return kept.to(wave.device)
        self.misses += 1
        found = stem(wave[None])
        if self.num_bytes + found.nbytes <= self._max_bytes:
            self._kept[key] = found.cpu().clone()
            self.num_bytes += found.nbytes
        return found
