"""Sources of tokens for kernels: ids, or rows of packed samples.

Legend: N resident samples, B batch, S bytes per packed sample, H W grid, K codes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from seit.errors import UsageError
from seit.shards import sample_bytes, token_bits
from seit.stream import place_planes

_UNSIGNED = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32, 8: torch.uint64}


@dataclass(frozen=True, eq=False)
class TokenSource:
    """Checked tokens of a batch, as the programs take them.

    Attributes:
        tokens: unsigned ids (B, H, W), or packed samples uint8 (N, S); contiguous.
        rows: int64 (B,), the packed samples of the batch; None for ids.
        grid: (H, W).
        stride: elements of ``tokens`` per sample.
        planes: (shift, width, first byte) of each plane of packed samples; empty for ids.
    """

    tokens: Tensor
    rows: Tensor | None
    grid: tuple[int, int]
    stride: int
    planes: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(
        cls,
        tokens: Tensor,
        rows: Tensor | None,
        *,
        num_samples: int,
        grid: tuple[int, int],
        num_codes: int,
    ) -> "TokenSource":
        """Check the tokens of ``num_samples`` samples.

        Args:
            tokens: ids, integers (B, H, W); or with ``rows`` packed samples, uint8 (N, S).
            rows: (B,) int64, each 0 … N − 1.
            num_samples: B.
            grid: (H, W).
            num_codes: K.

        Raises:
            UsageError: tensors of other shapes or dtypes.
        """
        H, W = grid
        bits = token_bits(num_codes)
        if rows is None:
            expected = f"integers ({num_samples}, {H}, {W})"
            fits = tokens.shape == (num_samples, H, W) and not tokens.is_floating_point()
        else:
            size = sample_bytes(H * W, bits)
            expected = f"torch.uint8 (N, {size}) and {num_samples} rows of torch.int64"
            fits = tokens.dtype == torch.uint8 and tokens.shape[1:] == (size,)
            fits = fits and rows.shape == (num_samples,) and rows.dtype == torch.int64
        if not fits:
            found = "" if rows is None else f" and {len(rows)} rows of {rows.dtype}"
            raise UsageError(
                f"the tokens are {tokens.dtype} {tuple(tokens.shape)}{found}; expected {expected}: "
                "pass the samples that the plan was drawn for, of this grid"
            )
        return cls(
            tokens=tokens.contiguous().view(_UNSIGNED[tokens.element_size()]),
            rows=None if rows is None else rows.contiguous(),
            grid=grid,
            stride=H * W if rows is None else tokens.shape[1],
            planes=() if rows is None else place_planes(H * W, bits),
        )
