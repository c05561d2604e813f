"""Pictures of reconstructions from masked tokens.

Legend: n samples, H W grid, S side of a picture.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from seit.report import Captioned
from seit.tokenizers import Tokenizer, decode_pictures

_GREY = 128


def reconstruction_rows(
    tokenizer: Tokenizer,
    keys: Sequence[str],
    *,
    original: npt.NDArray[np.int64],
    masked: npt.NDArray[np.bool_],
    predicted: npt.NDArray[np.int64],
) -> list[tuple[str, list[Captioned]]]:
    """Return rows of three pictures: a sample, its visible part, and the reconstruction.

    All are decoded from tokens; audio is shown as spectrograms.

    Args:
        tokenizer: tokenizer of the store.
        keys: keys of the samples.
        original: ids (n, H, W).
        masked: (n, H, W), the hidden cells.
        predicted: ids (n, H, W), with the most likely codes in hidden cells.

    Raises:
        SeitError: the tokenizer cannot decode.
    """
    whole, completed = decode_pictures(tokenizer, original), decode_pictures(tokenizer, predicted)
    # Spectrograms have low frequencies at the bottom, which are row 0 of their grids.
    flipped = masked[:, ::-1] if tokenizer.modality == "audio" else masked
    hidden = np.stack([_enlarge(mask, whole.shape[1:3]) for mask in flipped])
    seen = np.where(hidden[..., None], np.uint8(_GREY), whole)
    rows = []
    for number, key in enumerate(keys):
        mask = masked[number]
        hits = (original[number] == predicted[number])[mask]
        title = f"{key}: {mask.mean():.0%} hidden, {hits.mean() if hits.size else 1:.0%} of it told"
        pictures = (whole[number], seen[number], completed[number])
        captions = ("its tokens", "what was seen", "completed")
        rows.append((title, [Captioned(*pair) for pair in zip(pictures, captions, strict=True)]))
    return rows


def _enlarge(mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Enlarge a mask (H, W) to the size of a picture."""
    rows, columns = (
        np.arange(length) * cells // length for length, cells in zip(size, mask.shape, strict=True)
    )
    return mask[np.ix_(rows, columns)]
