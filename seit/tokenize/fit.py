"""Fitting a tokenizer to a corpus, and measuring one on it, from a sample of its images.

Shape letters: S image side.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from seit.errors import SeitError, UsageError
from seit.tokenize.config import TokenizeConfig, resolve_tokenizer
from seit.tokenize.pixels import PixelReader
from seit.tokenize.sources import Corpus, Instance, list_corpus
from seit.tokenizers import PatchTokenizer, Quality, Tokenizer, measure_quality

FIT_IMAGES = 512
QUALITY_IMAGES = 128


def pixel_reader(config: TokenizeConfig) -> PixelReader:
    """A reader for a config whose image size is settled."""
    assert config.size is not None, "resolve_tokenizer settles the size"
    return PixelReader(size=config.size, max_pixels=config.max_pixels, workers=config.workers)


def fit_tokenizer(corpus: Corpus, config: TokenizeConfig, reader: PixelReader) -> Tokenizer:
    """Fit the named tokenizer on a sample of the corpus.

    Raises:
        SeitError: no image is readable, or too few are.
    """
    images = sample_images(corpus, reader, count=FIT_IMAGES, split="train")
    return PatchTokenizer.fit(images, num_codes=config.codes, seed=config.seed)


def sample_images(corpus: Corpus, reader: PixelReader, *, count: int, split: str) -> torch.Tensor:
    """Decode about ``count`` images, evenly spread over ``split``: uint8 (n, S, S, 3), n ≥ 1.

    Where the split is absent or has no readable image, the rest of the corpus serves.

    Raises:
        SeitError: no image of the corpus is readable.
    """
    preferred = corpus.by_split().get(split, ())
    for candidates in (spread_evenly(preferred, count), preferred, corpus.instances):
        pixels = [
            entry.pixels
            for entry in islice(
                (entry for entry in reader.read(candidates) if entry.pixels is not None), count
            )
        ]
        if pixels:
            return torch.from_numpy(np.stack([array for array in pixels if array is not None]))
    first = next(reader.read(corpus.instances[:1]))
    raise SeitError(
        f"none of the {len(corpus.instances)} files of {corpus.source} can be read as an image "
        f"({first.instance.key}: {first.reason}); check that SRC is the right folder"
    )


def spread_evenly(instances: Sequence[Instance], count: int) -> list[Instance]:
    """At most ``count`` of the instances, at even distances."""
    if len(instances) <= count:
        return list(instances)
    return [instances[i * len(instances) // count] for i in range(count)]


def fit_and_measure(
    source: str | Path, config: TokenizeConfig
) -> tuple[Tokenizer, Quality, tuple[str, ...]]:
    """Fit the named tokenizer on a corpus; also its quality there, and warnings.

    Raises:
        UsageError: wrong input.
        SeitError: no image is readable, or too few are.
    """
    config, _ = resolve_tokenizer(config)
    corpus = list_corpus(source, val_fraction=config.val_fraction, root=config.root)
    with pixel_reader(config) as reader:
        tokenizer = fit_tokenizer(corpus, config, reader)
        return tokenizer, measure(tokenizer, corpus, reader), corpus.warnings


def measure(
    tokenizer: Tokenizer, corpus: Corpus, reader: PixelReader, *, images: int = QUALITY_IMAGES
) -> Quality:
    """The quality of a tokenizer on images of the corpus, of its val split if it has one."""
    pixels = sample_images(corpus, reader, count=images, split="val")
    with torch.inference_mode():
        return measure_quality(tokenizer, pixels)


def measure_on_corpus(
    tokenizer: Tokenizer, source: str | Path, *, images: int
) -> tuple[Quality, tuple[str, ...]]:
    """The quality of a tokenizer on images of ``source``, and warnings.

    Raises:
        UsageError: wrong input.
        SeitError: no image is readable.
    """
    if images < 1:
        raise UsageError(f"images is {images}; at least one is needed")
    corpus = list_corpus(source)
    config = TokenizeConfig(size=tokenizer.image_size)
    with pixel_reader(config) as reader:
        return measure(tokenizer, corpus, reader, images=images), corpus.warnings
