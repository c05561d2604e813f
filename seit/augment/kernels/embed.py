"""Fused embedding: tokens → augmented embeddings in one pass over the output.

Legend: N resident samples, B batch, S bytes per packed sample, H W grid, h w cropped grid,
K codes, C codebook dim.
"""

import torch
from torch import Tensor

from seit.augment.config import Interpolation
from seit.augment.kernels.draws import signed_word
from seit.augment.kernels.plan import Plan
from seit.augment.kernels.tokens import TokenSource
from seit.errors import UsageError

_MAX_CHANNELS = 64
_TILE_ELEMENTS = 1024
"""Elements per program, eight per thread; more need so many registers that fewer threads run."""
_MIN_TILE, _MAX_TILE = 16, 128
_NUM_WARPS = 4


def fused_embed(
    tokens: Tensor,
    codebook_KC: Tensor,
    plan: Plan,
    *,
    fill: Tensor | None = None,
    grid: tuple[int, int],
    size: tuple[int, int],
    rows: Tensor | None = None,
    mode: Interpolation = "bicubic",
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> Tensor:
    """Look up, crop and resize, add noise, blank, paste boxes and blend, in one Triton program.

    Equal to :class:`seit.augment.TokenAugment` after its edits of ids, up to the order of additions
    in float32: within 1e-5 of the codebook's RMS, then rounded to ``dtype``. Reads each sample's
    tokens at most three times, writes each output once and stores nothing else. Has no gradient.

    Values are not checked, since that would synchronize with the device: an invalid id is read as
    the last code, an invalid row as zeros, an invalid partner as the nearest sample.

    Args:
        tokens: ids, integers (B, H, W); or with ``rows`` packed samples, uint8 (N, S).
        codebook_KC: float32, bfloat16 or float16, on the device of ``tokens``.
        plan: the samples' draws, likewise.
        fill: (C,) float32, likewise, the embedding of blank cells; needed if the plan has any.
        grid: (H, W).
        size: (h, w).
        rows: (B,) int64, each 0 … N − 1, the packed samples of the batch.
        mode: interpolation of crops.
        dtype: dtype of the result: float32, bfloat16 or float16.
        channels_last: whether the result is channels-last.

    Returns:
        (B, C, h, w), contiguous in that memory format.

    Raises:
        UsageError: tensors of other shapes or dtypes.
    """
    from seit.augment.kernels.programs.fused import embed_program

    _check_plan(plan, codebook_KC, fill)
    h, w = size
    K, C = codebook_KC.shape
    num_samples = len(plan.columns)
    source = TokenSource.of(tokens, rows, num_samples=num_samples, grid=grid, num_codes=K)
    out = torch.empty(
        (num_samples, C, h, w),
        dtype=dtype,
        device=tokens.device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )
    channels = min(_MAX_CHANNELS, _power_of_two(C))
    tile = min(_MAX_TILE, _TILE_ELEMENTS // channels, max(_MIN_TILE, _power_of_two(h * w)))
    programs = num_samples * -(-h * w // tile) * -(-C // channels)
    with torch.cuda.device_of(tokens):
        embed_program[(programs,)](
            source.tokens,
            source.rows,
            codebook_KC.detach().contiguous(),
            plan.columns,
            plan.shift,
            plan.stds,
            plan.positions,
            plan.blend,
            plan.blanks,
            None if plan.blanks is None else fill,
            out,
            num_samples,
            len(tokens),
            K,
            *map(signed_word, plan.key),
            STRIDE=source.stride,
            PLANES=source.planes,
            GRID=grid,
            SIZE=size,
            C=C,
            CUBIC=mode == "bicubic",
            MIXES=plan.mixes,
            NOISE=plan.shift is not None,
            NUM_BLANKS=0 if plan.blanks is None else plan.blanks.shape[1],
            CHANNELS_LAST=channels_last,
            TILE=tile,
            CHANNELS=channels,
            num_warps=_NUM_WARPS,
            enable_fp_fusion=False,
        )
    return out


def _check_plan(plan: Plan, codebook_KC: Tensor, fill: Tensor | None) -> None:
    shape = tuple(codebook_KC.shape)
    channels = shape[-1:] if plan.shift is None else plan.shift.shape[1:]
    if len(shape) != 2 or not codebook_KC.is_floating_point() or shape[1:] != channels:
        raise UsageError(
            f"the codebook is {codebook_KC.dtype} {shape}; expected floating point (K, C), with "
            f"{tuple(channels)} channels: pass the codebook that the plan was drawn for"
        )
    if plan.blanks is not None and (fill is None or fill.shape != shape[1:]):
        raise UsageError(
            f"the fill of blank cells is {None if fill is None else tuple(fill.shape)}; expected "
            f"({shape[1]},): pass the mean of the codes"
        )


def _power_of_two(number: int) -> int:
    """Return the smallest power of two that is at least ``number``."""
    return 1 << (number - 1).bit_length()
