"""Fit of a tokenizer, and measurement of its quality, on a sample of a corpus."""

import os
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from seit.errors import SeitError, UsageError
from seit.ingest.config import TokenizeConfig
from seit.ingest.inputs.audio import AudioReader
from seit.ingest.inputs.pixels import PixelReader
from seit.ingest.inputs.reader import Reader
from seit.ingest.resolve import resolve_tokenizer
from seit.ingest.sources import Corpus, Instance, list_corpus
from seit.tokenizers import (
    PRESETS,
    AnyQuality,
    AudioInputs,
    ImageInputs,
    Tokenizer,
    measure_quality,
)

_T = TypeVar("_T")
FIT_INPUTS = 512
QUALITY_INPUTS = 128
THREADS_THAT_SCALE = 4
"""Number of threads up to which they decode faster than processes; more contend for the lock."""


def make_reader(config: TokenizeConfig) -> Reader:
    """Return a reader for a config with resolved inputs.

    Raises:
        UsageError: the inputs are audio and the audio packages are not installed.
    """
    workers = config.workers or os.cpu_count() or 1
    processes = config.decoders == "processes"
    if config.decoders == "auto":
        processes = workers > THREADS_THAT_SCALE
    inputs = config.inputs
    if isinstance(inputs, AudioInputs):
        return AudioReader(
            sample_rate=inputs.sample_rate,
            window=inputs.window,
            max_seconds=config.max_seconds,
            workers=workers,
            processes=processes,
        )
    assert isinstance(inputs, ImageInputs), "resolve_tokenizer settles the inputs"
    return PixelReader(
        size=inputs.size,
        max_pixels=config.max_pixels,
        views=config.views,
        seed=config.seed,
        workers=workers,
        processes=processes,
    )


def fit_tokenizer(
    corpus: Corpus, config: TokenizeConfig, reader: Reader, *, levels: int | None = None
) -> Tokenizer:
    """Fit the named tokenizer on a sample of the corpus.

    Raises:
        SeitError: no input is readable, or too few are.
    """
    inputs = sample_inputs(corpus, reader, count=FIT_INPUTS, split="train")
    return PRESETS[config.tokenizer].fit(
        inputs, num_codes=config.fitted_codes, levels=levels, seed=config.seed
    )


def sample_inputs(corpus: Corpus, reader: Reader, *, count: int, split: str) -> torch.Tensor:
    """Decode about ``count`` images or windows, evenly spread over ``split``: (n, …), n ≥ 1.

    If the split is absent or unreadable, use the rest of the corpus.

    Raises:
        SeitError: nothing in the corpus is readable.
    """
    preferred = corpus.by_split().get(split, ())
    for candidates in (spread_evenly(preferred, count), preferred, corpus.instances):
        values = list(spread_values(reader, candidates, count))
        if values:
            return torch.from_numpy(np.stack(values))
    first = next(reader.read(corpus.instances[:1]))
    what = "audio" if isinstance(reader, AudioReader) else "an image"
    raise SeitError(
        f"none of the {len(corpus.instances)} files of {corpus.source} can be read as {what} "
        f"({first.instance.key}: {first.reason}); check that SRC is the right folder"
    )


def spread_values(
    reader: Reader, files: Sequence[Instance], count: int
) -> Iterator[npt.NDArray[np.generic]]:
    """Yield the values of at most ``count`` samples, from all files in equal shares.

    If there are more files than that, the first readable ones yield one each.
    """
    n = len(files)
    shares = (max(1, (number + 1) * count // n - number * count // n) for number in range(n))
    values = (
        sample.values
        for entry, share in zip(reader.read(files), shares, strict=True)
        for sample in spread_evenly(entry.samples, share)
    )
    return islice(values, count)


def spread_evenly(entries: Collection[_T], count: int) -> list[_T]:
    """Return at most ``count`` evenly spaced entries."""
    if len(entries) <= count:
        return list(entries)
    places = {number * len(entries) // count for number in range(count)}
    return [entry for place, entry in enumerate(entries) if place in places]


def fit_and_measure(
    source: str | Path, config: TokenizeConfig, *, levels: int | None = None
) -> tuple[Tokenizer, AnyQuality, tuple[str, ...]]:
    """Fit the named tokenizer on a corpus; return it with its quality there and warnings.

    ``levels`` is for residual kinds; the default is `RESIDUAL_LEVELS`.

    Raises:
        UsageError: invalid input.
        SeitError: too few inputs are readable.
    """
    config, given = resolve_tokenizer(config)
    if given is not None and levels is not None:
        raise UsageError(f"{config.tokenizer} is not fitted, so it has no levels; leave them out")
    corpus = list_corpus(
        source, val_fraction=config.val_fraction, root=config.root, modality=config.modality
    )
    with make_reader(config) as reader:
        tokenizer = given or fit_tokenizer(corpus, config, reader, levels=levels)
        return tokenizer, measure(tokenizer, corpus, reader), corpus.warnings


def measure(
    tokenizer: Tokenizer, corpus: Corpus, reader: Reader, *, images: int = QUALITY_INPUTS
) -> AnyQuality:
    """Return the quality of a tokenizer on inputs of the corpus, from its val split if any."""
    inputs = sample_inputs(corpus, reader, count=images, split="val")
    with torch.inference_mode():
        return measure_quality(tokenizer, inputs)


def measure_on_corpus(
    tokenizer: Tokenizer, source: str | Path, *, images: int
) -> tuple[AnyQuality, tuple[str, ...]]:
    """Return the quality of a tokenizer on ``images`` inputs of ``source``, and warnings.

    Raises:
        UsageError: invalid input.
        SeitError: nothing is readable.
    """
    if images < 1:
        raise UsageError(f"images is {images}; expected at least 1")
    corpus = list_corpus(source, modality=tokenizer.modality)
    with make_reader(TokenizeConfig(inputs=tokenizer.inputs)) as reader:
        warnings = (*corpus.warnings, *held_out_remarks(corpus))
        return measure(tokenizer, corpus, reader, images=images), warnings


def held_out_remarks(corpus: Corpus) -> list[str]:
    """Name the measured files of a corpus without its own splits; return no remarks for others."""
    if not corpus.is_hash_split:
        return []
    count, total = len(corpus.by_split().get("val", ())), len(corpus.instances)
    return [
        f"{corpus.source} names no val split: {count:,} of its {total:,} files, chosen by hash, "
        "were measured; what is fitted is fitted on the others"
    ]
