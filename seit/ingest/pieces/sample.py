"""Fit before the work: tokenizer, tables of the codec and quality, from a sample of the corpus.

The sample is the beginning of evenly spread pieces, so it depends on the corpus alone.

Legend: N samples, H W token grid.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from seit.devices import choose_device
from seit.errors import SeitError
from seit.ingest.batches import encode_samples, samples_of
from seit.ingest.config import TokenizeConfig
from seit.ingest.encoder import BatchEncoder
from seit.ingest.fit import FIT_INPUTS, QUALITY_INPUTS, spread_evenly
from seit.ingest.inputs.reader import Decoded, Reader
from seit.ingest.pieces.maker import split_by_hash
from seit.ingest.pieces.piece import Findings, Piece, Pieces
from seit.ingest.pieces.place import Ready
from seit.ingest.sources import Instance
from seit.ingest.sources.splits import split_of
from seit.shards import (
    MAX_CODES,
    MAX_FIT_TOKENS,
    Codec,
    ContextCodec,
    PackedCodec,
    TokenLayout,
    fit_context,
    smaller_codec,
)
from seit.tokenizers import PRESETS, Tokenizer, measure_quality

FIT_TOKENS = 1 << 23
"""Tokens that the codec is fitted to: within 0.2 % of the bytes of a fit to everything."""
_PIECES = 64
"""Most pieces that a sample is taken from."""


class Fit(NamedTuple):
    """Tokenizer and codec of a job, and what else the sample says."""

    tokenizer: Tokenizer
    codec: Codec
    ready: Ready


class CorpusSample:
    """Sample of a corpus in pieces."""

    def __init__(self, corpus: Pieces, reader: Reader, config: TokenizeConfig) -> None:
        self._corpus = corpus
        self._reader = reader
        self._config = config

    def read(self, count: int, *, split: str | None = None) -> Iterator[Decoded]:
        """Yield up to ``count`` readable inputs, of a split if it has any in the sample."""
        chosen = self._of(split) if split else self._corpus.pieces
        pieces = spread_evenly(chosen, min(_PIECES, count))
        share = -(-count // len(pieces))
        found = 0
        for piece in pieces:
            inputs = islice(self.instances(piece, split), share)
            for entry in self._reader.read(inputs):
                if entry.samples:
                    found += 1
                    yield entry
                if found == count:
                    return

    def _of(self, split: str) -> Sequence[Piece]:
        """Return the pieces whose names say this split, else those that say none, else all."""
        said = [(piece, split_of(piece.file)) for piece in self._corpus.pieces]
        return (
            [piece for piece, name in said if name == split]
            or [piece for piece, name in said if name is None]
            or self._corpus.pieces
        )

    def instances(self, piece: Piece, split: str | None = None) -> Iterator[Instance]:
        """Yield the inputs of a piece, or those of a split, without labels."""
        for draft in self._corpus.reader.read(piece, Findings()):
            name = draft.split or split_by_hash(draft.key, self._config.val_fraction)
            if split in (None, name):
                yield Instance(draft.key, name, -1, draft.location, draft.metadata, draft.num_bytes)

    def values(self, count: int, *, split: str) -> torch.Tensor:
        """Return decoded inputs of a split (n, …), of the rest if it has none.

        Raises:
            SeitError: nothing is readable.
        """
        for wanted in (split, None):
            entries = self.read(count, split=wanted)
            found = [value for entry in entries for value in _few(entry, count)][:count]
            if found:
                return torch.from_numpy(np.stack(found))
        raise SeitError(
            f"no input at the beginning of the pieces of {self._corpus.source} can be read; check "
            "that SRC is the right place"
        )


def _few(entry: Decoded, count: int) -> Iterator[npt.NDArray[np.generic]]:
    return (sample.values for sample in islice(entry.samples, count))


def fit_to_pieces(corpus: Pieces, config: TokenizeConfig, reader: Reader) -> Tokenizer:
    """Fit the named tokenizer on a sample of the corpus.

    Raises:
        SeitError: no input of the sample is readable, or too few are.
    """
    values = CorpusSample(corpus, reader, config).values(FIT_INPUTS, split="train")
    preset = PRESETS[config.tokenizer]
    return preset.fit(values, num_codes=config.fitted_codes, levels=None, seed=config.seed)


def fit_job(corpus: Pieces, config: TokenizeConfig, given: Tokenizer | None, reader: Reader) -> Fit:
    """Fit tokenizer and codec to a sample, and measure the tokenizer.

    Raises:
        SeitError: too few inputs of the sample are readable.
    """
    sample = CorpusSample(corpus, reader, config)
    tokenizer = given or fit_to_pieces(corpus, config, reader)
    with torch.inference_mode():
        quality = measure_quality(tokenizer, sample.values(QUALITY_INPUTS, split="val"))
    device = choose_device(config.device) if config.engine == "local" else torch.device("cpu")
    tokenizer = tokenizer.to(device)
    codec = _fit_codec(corpus, config, tokenizer, sample)
    rounded = {key: round(value, 4) for key, value in asdict(quality).items()}
    return Fit(tokenizer.to("cpu"), codec, Ready(codec.name, rounded))


def _fit_codec(
    corpus: Pieces, config: TokenizeConfig, tokenizer: Tokenizer, sample: CorpusSample
) -> Codec:
    """Return the codec, fitted to the sample if it is `context` and that pays."""
    layout = TokenLayout(grid=tokenizer.grid, num_codes=tokenizer.num_codes)
    if config.codec != ContextCodec.name or layout.num_codes > MAX_CODES:
        return PackedCodec(layout)
    wanted = config.fit_samples or FIT_TOKENS // layout.length
    count = max(1, min(wanted, MAX_FIT_TOKENS // layout.length))
    parts, num_bytes = [], 0
    with BatchEncoder(tokenizer, workers=config.workers, compiled=config.compile) as encoder:
        for group, ids_nHW in encode_samples(samples_of(sample.read(count)), tokenizer, encoder):
            parts.append(ids_nHW)
            num_bytes += sum(entry.num_bytes for entry in group)
    tokens_NHW = np.concatenate(parts)
    expected = max(len(tokens_NHW), corpus.expect_samples(num_bytes / len(tokens_NHW)))
    tokens_NHW = tokens_NHW[:count]
    codebook = tokenizer.codebook.cpu().numpy()
    fitted = fit_context(layout, tokens_NHW, codebook, total_samples=expected)
    return smaller_codec(fitted, tokens_NHW, total_samples=expected)
