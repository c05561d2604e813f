"""Stages between decoded inputs and blocks: samples, encode batches of fixed shape, blocks.

Legend: B encode batch, n samples of a group, H W token grid.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from seit.ingest.encoder import Encoder
from seit.ingest.inputs.reader import Decoded
from seit.ingest.sources import Instance
from seit.shards import BLOCK_SAMPLES, TokenLayout
from seit.tokenizers import Tokenizer

ENCODE_BATCH = 64
"""Inputs per tokenizer call; the last batch of a shard is padded, for equal arithmetic everywhere.
"""


class FileSample(NamedTuple):
    """Fields written with the tokens of a sample; ``num_bytes`` is its share of the file."""

    instance: Instance
    num_bytes: int


Encoded = tuple[list[FileSample], npt.NDArray[np.unsignedinteger]]
"""Samples and their ids (n, H, W)."""


def samples_of(good: Iterable[Decoded]) -> Iterator[tuple[FileSample, npt.NDArray[Any]]]:
    """Yield the samples of inputs in order; the first of each input accounts for its bytes."""
    for entry in good:
        for number, sample in enumerate(entry.samples):
            yield FileSample(sample.instance, 0 if number else entry.num_bytes), sample.values


def encode_samples(
    samples: Iterable[tuple[FileSample, npt.NDArray[Any]]],
    tokenizer: Tokenizer,
    encoder: Encoder,
) -> Iterator[Encoded]:
    """Yield samples and their ids, tokenized in batches of fixed shape."""
    dtype = TokenLayout(grid=tokenizer.grid, num_codes=tokenizer.num_codes).dtype
    for group, ids_BHW in encoder.encode(_batches(samples, tokenizer)):
        yield group, ids_BHW[: len(group)].astype(dtype)


def _batches(
    samples: Iterable[tuple[FileSample, npt.NDArray[Any]]], tokenizer: Tokenizer
) -> Iterator[tuple[list[FileSample], npt.NDArray[Any]]]:
    """Yield samples and tokenizer inputs (B, …), the last batch padded with zeros."""
    inputs = tokenizer.inputs
    iterator = iter(samples)
    while group := list(islice(iterator, ENCODE_BATCH)):
        batch = np.zeros((ENCODE_BATCH, *inputs.shape), dtype=inputs.dtype)
        for row, (_, values) in enumerate(group):
            batch[row] = values
        yield [sample for sample, _ in group], batch


def in_blocks(batches: Iterable[Encoded]) -> Iterator[Encoded]:
    """Regroup batches of samples and their ids (n, H, W) into blocks."""
    samples: list[FileSample] = []
    tokens: list[npt.NDArray[np.unsignedinteger]] = []
    for batch_samples, batch_tokens in batches:
        samples += batch_samples
        tokens.append(batch_tokens)
        if len(samples) >= BLOCK_SAMPLES:
            joined = np.concatenate(tokens)
            yield samples[:BLOCK_SAMPLES], joined[:BLOCK_SAMPLES]
            samples, tokens = samples[BLOCK_SAMPLES:], [joined[BLOCK_SAMPLES:]]
    if samples:
        yield samples, np.concatenate(tokens)


def metadata_of(instances: list[Instance]) -> tuple[Mapping[str, Any], ...] | None:
    """Return the metadata of the samples of a block; None if none has any."""
    if not any(entry.metadata for entry in instances):
        return None
    return tuple(dict(entry.metadata) for entry in instances)
