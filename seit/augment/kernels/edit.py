"""Edits of ids in one pass: synonyms, code swap, time roll and flip.

Legend: N resident samples, B batch, s bytes per packed sample, H W grid, K codes,
S synonyms per code.
"""

import torch
from torch import Tensor

from seit.augment.config import AugmentConfig
from seit.augment.kernels.draws import signed_word
from seit.augment.kernels.tokens import TokenSource
from seit.augment.random import SampleRandom
from seit.stream import id_dtype

_MAX_TILE = 256


def edits_ids(config: AugmentConfig) -> bool:
    """Return whether ``config`` changes any ids."""
    return any((config.synonym_prob, config.swap_prob, config.time_roll, config.flip_prob))


def edit_triton(
    source: TokenSource, synonyms_KS: Tensor, random: SampleRandom, config: AugmentConfig
) -> Tensor:
    """Edit ids as :class:`seit.augment.TokenAugment` does, bit for bit, in one Triton program.

    Values are not checked: an invalid id gets the synonyms of the last code.

    Args:
        source: the samples.
        synonyms_KS: int64 (K, S), from :func:`seit.augment.nearest_codes`.
        random: the samples' draws, on the device of ``source``.
        config: the edits.

    Returns:
        Ids (B, H, W), int16 if K ≤ 32,768, else int32.
    """
    from seit.augment.kernels.programs.edit import edit_program

    (H, W), num_samples = source.grid, len(random)
    K, S = synonyms_KS.shape
    edited = torch.empty((num_samples, H, W), dtype=id_dtype(K), device=source.tokens.device)
    tile = min(_MAX_TILE, 1 << (H * W - 1).bit_length())
    programs = num_samples * -(-H * W // tile)
    if not programs:
        return edited
    replaces = config.synonym_prob > 0 and config.synonym_rate > 0
    with torch.cuda.device_of(edited):
        edit_program[(programs,)](
            source.tokens,
            source.rows,
            random.positions.contiguous(),
            synonyms_KS.contiguous(),
            edited,
            len(source.tokens),
            K,
            *map(signed_word, random.key),
            config.synonym_prob,
            config.synonym_rate,
            S / config.synonym_rate if replaces else 0.0,
            config.synonym_prob + config.swap_prob,
            config.swap_max * min(H, W),
            config.flip_prob,
            STRIDE=source.stride,
            PLANES=source.planes,
            GRID=(H, W),
            SYNONYMS=S if replaces else 0,
            SWAPS=config.swap_prob > 0,
            ROLL=int(config.time_roll * W),
            FLIPS=config.flip_prob > 0,
            TILE=tile,
            enable_fp_fusion=False,
        )
    return edited
