"""Start of a job in pieces: find them, and resolve the tokenizer, image size and classes."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from seit.documents import read_plain
from seit.errors import UsageError
from seit.ingest.config import TokenizeConfig
from seit.ingest.fit import spread_evenly
from seit.ingest.pieces.find import find_pieces
from seit.ingest.pieces.maker import split_by_hash
from seit.ingest.pieces.piece import Findings, Pieces
from seit.ingest.resolve import resolve_tokenizer
from seit.ingest.settle import SMALL_SAMPLE, for_small_pictures, is_open, small_remark
from seit.ingest.sources import Instance
from seit.ingest.sources.corpus import shown
from seit.tokenizers import Tokenizer

MAX_CLASSES_BYTES = 1 << 26
"""Size limit of a list of classes."""


class SettledPieces(NamedTuple):
    """Corpus in pieces, config with its inputs, and tokenizer; None if it is to be fitted."""

    corpus: Pieces
    config: TokenizeConfig
    tokenizer: Tokenizer | None


def settle_pieces(source: str | Path, config: TokenizeConfig) -> SettledPieces:
    """Find the pieces of a source and resolve how it is tokenized, as for a listed one.

    Raises:
        UsageError: the source cannot be cut into pieces, or the tokenizer or list of classes does
            not exist.
    """
    settled, given = resolve_tokenizer(config)
    corpus = replace(find_pieces(source, settled), **_given_classes(config))
    small = _small(corpus, config)
    if small is not None:
        settled, given = resolve_tokenizer(small)
        corpus = replace(corpus, warnings=(*corpus.warnings, small_remark(small)))
    return SettledPieces(corpus, settled, given)


class FirstInput(NamedTuple):
    """Input at the beginning of a piece, and its class as it was given."""

    instance: Instance
    class_name: str | None


def first_inputs(corpus: Pieces, config: TokenizeConfig, count: int) -> Iterator[FirstInput]:
    """Yield up to ``count`` inputs from the beginning of evenly spread pieces."""
    pieces = spread_evenly(corpus.pieces, count)
    for piece in pieces:
        drafts = corpus.reader.read(piece, Findings())
        for draft in islice(drafts, max(1, count // len(pieces))):
            split = draft.split or split_by_hash(draft.key, config.val_fraction)
            instance = Instance(
                draft.key, split, -1, draft.location, draft.metadata, draft.num_bytes
            )
            yield FirstInput(instance, draft.class_name)


def mean_size(instances: list[Instance]) -> float:
    """Return the mean bytes of the files of instances, as far as they are known; 0 if none is."""
    known = [entry.num_bytes for entry in instances if entry.num_bytes > 0]
    return sum(known) / max(1, len(known))


def _small(corpus: Pieces, config: TokenizeConfig) -> TokenizeConfig | None:
    """Return the settings for small pictures; None if they do not apply."""
    if not is_open(config):
        return None
    sample = [entry.instance for entry in first_inputs(corpus, config, SMALL_SAMPLE)]
    return for_small_pictures(config, sample, num_images=corpus.expect_samples(mean_size(sample)))


def _given_classes(config: TokenizeConfig) -> dict[str, Any]:
    """Return the classes of the file that the settings name."""
    if config.classes is None:
        return {}
    try:
        text = read_plain(config.classes, max_bytes=MAX_CLASSES_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise UsageError(f"{config.classes} cannot be read as a list of classes: {error}") from None
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    doubles = [name for name, count in Counter(names).items() if count > 1]
    if doubles or not names:
        what = f"names {shown(doubles[0])} twice" if doubles else "names no class"
        raise UsageError(f"{config.classes} {what}; expected one class a line")
    return {"classes": names}
