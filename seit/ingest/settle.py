"""Start of a job: list its corpus, and resolve its tokenizer and image size."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from seit.errors import UnreadableError
from seit.ingest.config import AUTO, TokenizeConfig
from seit.ingest.fit import FIT_INPUTS, spread_evenly
from seit.ingest.inputs.images import picture_size
from seit.ingest.inputs.views import VIEW_SIGN
from seit.ingest.resolve import resolve_tokenizer
from seit.ingest.sources import Corpus, Instance, list_corpus, read_bytes
from seit.ingest.sources.media import check_derived_keys
from seit.tokenizers import PatchTokenizer, Tokenizer

SMALL_SIDE = 64
"""Largest shorter side, in pixels, of a small picture."""
_ENLARGED = 2
_PATCH_SIDE = 8
_PATCHES_PER_CODE = 4
SMALL_SAMPLE = 64
"""Pictures that are looked at to tell whether they are small."""


class Settled(NamedTuple):
    """Listed corpus, config with its inputs, and tokenizer; None if it is to be fitted."""

    corpus: Corpus
    config: TokenizeConfig
    tokenizer: Tokenizer | None


def settle_job(source: str | Path, config: TokenizeConfig) -> Settled:
    """List a source and resolve how it is tokenized.

    If the config sets neither a tokenizer nor a size and the pictures are small, the job fits
    patch-pca-vq at twice their size, so that a token covers 4×4 pixels, and adds a warning.

    Raises:
        UsageError: the source is invalid, or the tokenizer does not exist.
    """
    settled, tokenizer = resolve_tokenizer(config)
    corpus = list_source(source, settled)
    sample = spread_evenly(corpus.instances, SMALL_SAMPLE) if is_open(config) else ()
    train = len(corpus.by_split().get("train", ()))
    small = for_small_pictures(config, sample, num_images=train)
    if small is None:
        return Settled(corpus, settled, tokenizer)
    settled, tokenizer = resolve_tokenizer(small)
    corpus = replace(corpus, warnings=(*corpus.warnings, small_remark(small)))
    return Settled(corpus, settled, tokenizer)


def is_open(config: TokenizeConfig) -> bool:
    """Return whether the size of the pictures may choose the tokenizer."""
    return config.tokenizer == AUTO and config.size is None


def small_remark(config: TokenizeConfig) -> str:
    """Return the remark on the settings of :func:`for_small_pictures`."""
    return (
        f"the pictures are small, so they are tokenized at {config.size} px by {config.tokenizer}; "
        "`seit tokenize --size … --tokenizer …` chooses otherwise"
    )


def list_source(
    source: str | Path,
    config: TokenizeConfig,
    *,
    kept_splits: Mapping[str, str] | None = None,
    known_classes: Sequence[str] = (),
) -> Corpus:
    """List the corpus of a job with a resolved tokenizer; see `list_corpus`.

    Raises:
        UsageError: the source is invalid, or a key could be that of another's window or view.
    """
    corpus = list_corpus(
        source,
        val_fraction=config.val_fraction,
        root=config.root,
        modality=config.modality,
        kept_splits=kept_splits,
        label_separator=config.label_separator,
        known_classes=known_classes,
    )
    if config.views > 1:
        check_derived_keys(corpus.instances, sign=VIEW_SIGN, part="view")
    return corpus


def for_small_pictures(
    config: TokenizeConfig, sample: Iterable[Instance], *, num_images: int
) -> TokenizeConfig | None:
    """Return the settings for small pictures; None if they are large, or too few to fit the codes.

    Args:
        config: settings that name neither a tokenizer nor a size.
        sample: some of the pictures.
        num_images: pictures of the training split.
    """
    sides = []
    for instance in sample:
        try:
            sides.append(min(picture_size(read_bytes(instance))))
        except UnreadableError:
            continue
        if sides[-1] > SMALL_SIDE:
            return None
    if not sides:
        return None
    grid_side = -(-_ENLARGED * max(sides) // _PATCH_SIDE)
    if min(num_images, FIT_INPUTS) * grid_side**2 < _PATCHES_PER_CODE * config.fitted_codes:
        return None
    return replace(config, tokenizer=PatchTokenizer.name, size=grid_side * _PATCH_SIDE)
