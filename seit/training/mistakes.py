"""Pictures of misclassified samples, decoded from their tokens.

Legend: n samples shown, N classes.
"""

from collections.abc import Sequence

import numpy as np

from seit.confusion import Confusion
from seit.report import Captioned, Confused, worst_confused
from seit.shards import Store
from seit.tokenizers import decode_pictures
from seit.training.answers import Predictions

NUM_PAIRS = 8
NUM_SAMPLES = 4


def mistaken_pictures(
    store: Store,
    predictions: Predictions,
    *,
    classes: Sequence[str],
    num_pairs: int = NUM_PAIRS,
    num_samples: int = NUM_SAMPLES,
) -> list[tuple[str, list[Captioned]]]:
    """Return samples of the most frequently confused pairs of classes, as rows of a grid.

    Each row is for a true and a predicted class, the most frequent pair first: its first
    ``num_samples`` samples in the split, decoded from their tokens, with their keys. Audio is shown
    as spectrograms. ``predictions`` are of a split of ``store``.

    Raises:
        SeitError: the store or its tokenizer cannot be read, or the tokenizer cannot decode.
    """
    assert predictions.store == store.card.seal
    split, tokenizer = store[predictions.split], store.load_tokenizer()
    rows = split.rows
    number_of = {name: number for number, name in enumerate(classes)}
    counts = Confusion.of_labels(predictions.labels, predictions.predicted, len(classes))
    shown = []
    for pair in worst_confused(counts, classes=classes, top=num_pairs):
        places = np.flatnonzero(
            (predictions.labels == number_of[pair.true])
            & (predictions.predicted == number_of[pair.predicted])
        )[:num_samples]
        samples = [split[int(rows[place])] for place in places]
        pictures = decode_pictures(tokenizer, np.stack([sample.tokens for sample in samples]))
        captioned = [
            Captioned(picture, sample.key)
            for picture, sample in zip(pictures, samples, strict=True)
        ]
        shown.append((_say(pair), captioned))
    return shown


def _say(pair: Confused) -> str:
    samples = "sample" if pair.num_images == 1 else "samples"
    return (
        f"{pair.true} taken for {pair.predicted}: {pair.num_images:,} {samples}, "
        f"{pair.share:.0%} of the class"
    )
