"""Fit of the `context` codec to a sample of a store, and the choice between it and `packed`.

Legend: n samples, H W grid, K codes, C dimension of a codebook vector, L levels of a residual
tokenizer.
"""

import numpy as np
import numpy.typing as npt

from seit.shards.codecs import Codec, PackedCodec, TokenLayout
from seit.shards.context.codec import ContextCodec
from seit.shards.context.fit import fit_tables

_JUDGED = 256
"""Samples whose coded bytes decide; up to twice as many are coded."""


def fit_context(
    layout: TokenLayout,
    tokens_nHW: npt.NDArray[np.unsignedinteger],
    codebook: npt.NDArray[np.floating],
    *,
    total_samples: int,
) -> ContextCodec:
    """Fit the codec to a sample of a store.

    Args:
        layout: layout of the store.
        tokens_nHW: ids of the sample.
        codebook: the store's, (K, C) or (L, K, C). All levels share the tables, so codes are
            similar if they are in each.
        total_samples: number of samples that the tables are for.

    Raises:
        UsageError: K > 4,096.
    """
    if codebook.ndim == 3:
        codebook = np.concatenate(list(codebook), axis=1)
    return ContextCodec(layout, fit_tables(tokens_nHW, codebook, total_samples=total_samples))


def smaller_codec(
    fitted: ContextCodec, tokens_nHW: npt.NDArray[np.unsignedinteger], *, total_samples: int
) -> Codec:
    """Return ``fitted``, or `packed` if that makes a store smaller, tables included.

    Args:
        fitted: the fitted codec.
        tokens_nHW: ids of samples of the store, n ≥ 1; a few of them, evenly spread, are coded.
        total_samples: number of samples of the store.
    """
    judged = tokens_nHW[:: max(1, len(tokens_nHW) // _JUDGED)]
    coded = len(fitted.encode(judged)) / len(judged) * total_samples + len(fitted.tables)
    smaller = coded < fitted.layout.sample_bytes * total_samples
    return fitted if smaller else PackedCodec(fitted.layout)
