"""Production of one shard: read inputs, tokenize them in batches of fixed shape, write.

Legend: B encode batch, H W token grid.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from seit.errors import SeitError
from seit.ingest.encoder import BatchEncoder
from seit.ingest.inputs.reader import Decoded, Reader
from seit.ingest.inputs.remarks import RemarkCounts
from seit.ingest.plan import ShardPlan
from seit.ingest.sources import Instance
from seit.ingest.workspace import DoneShard, Workspace
from seit.shards import BLOCK_SAMPLES, Block, PackedCodec, ShardWriter, TokenLayout
from seit.tokenizers import Tokenizer

ENCODE_BATCH = 64
"""Inputs per tokenizer call; the last batch of a shard is padded, for equal arithmetic everywhere.
"""


class _Sample(NamedTuple):
    """Fields written with the tokens of a sample; ``num_bytes`` is its share of the file."""

    instance: Instance
    num_bytes: int


class ShardMaker:
    """Maker of shards, whose contents depend only on the plan and the tokenizer."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        encoder: BatchEncoder,
        reader: Reader,
        workspace: Workspace,
        *,
        strict: bool,
        advance: Callable[[int, int], None],
    ) -> None:
        """Set up the maker; ``advance`` receives inputs done and how many of them were skipped."""
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.reader = reader
        self.workspace = workspace
        self.layout = TokenLayout(grid=tokenizer.grid, num_codes=tokenizer.num_codes)
        self._strict = strict
        self._advance = advance

    def make(self, plan: ShardPlan) -> DoneShard:
        """Make one shard and record it as done.

        Raises:
            SeitError: an input is unreadable and ``strict`` is set, or the disk is full.
        """
        skipped: list[tuple[str, str]] = []
        remarks = RemarkCounts()
        label_counts: Counter[int] = Counter()
        source_bytes = 0
        writer = ShardWriter(
            self.workspace.shards,
            split=plan.split,
            index=plan.index,
            codec=PackedCodec(self.layout),
        )
        good = self._good_inputs(plan, skipped, remarks)
        first = next(good, None)
        if first is None:
            record = DoneShard(None, tuple(skipped), {}, 0)
            self.workspace.write_done(plan, record)
            return record
        with writer:
            for samples, tokens in _blocks(self._encoded(_samples(chain([first], good)))):
                instances = [entry.instance for entry in samples]
                writer.write(
                    Block(
                        tokens=tokens,
                        labels=np.array([entry.label for entry in instances], dtype=np.int32),
                        keys=tuple(entry.key for entry in instances),
                        metadata=_metadata(instances),
                    )
                )
                label_counts.update(entry.label for entry in instances)
                source_bytes += sum(entry.num_bytes for entry in samples)
        record = DoneShard(
            writer.record, tuple(skipped), dict(label_counts), source_bytes, remarks.counts
        )
        self.workspace.write_done(plan, record)
        return record

    def _good_inputs(
        self, plan: ShardPlan, skipped: list[tuple[str, str]], remarks: RemarkCounts
    ) -> Iterator[Decoded]:
        for entry in self.reader.read(plan.inputs()):
            for sentence in entry.remarks:
                remarks.add(sentence, entry.instance.key)
            if not entry.samples:
                skipped.append((entry.instance.key, entry.reason))
                if self._strict:
                    refuse_skipped(skipped)
            self._advance(1, 0 if entry.samples else 1)
            if entry.samples:
                yield entry

    def _encoded(
        self, samples: Iterable[tuple[_Sample, npt.NDArray[Any]]]
    ) -> Iterator[tuple[list[_Sample], npt.NDArray[np.unsignedinteger]]]:
        """Yield samples and their ids (n, H, W), tokenized in batches of fixed shape."""
        for group, ids_BHW in self.encoder.encode(self._batches(samples)):
            yield group, ids_BHW[: len(group)].astype(self.layout.dtype)

    def _batches(
        self, samples: Iterable[tuple[_Sample, npt.NDArray[Any]]]
    ) -> Iterator[tuple[list[_Sample], npt.NDArray[Any]]]:
        """Yield samples and tokenizer inputs (B, …), the last batch padded with zeros."""
        inputs = self.tokenizer.inputs
        iterator = iter(samples)
        while group := list(islice(iterator, ENCODE_BATCH)):
            batch = np.zeros((ENCODE_BATCH, *inputs.shape), dtype=inputs.dtype)
            for row, (_, values) in enumerate(group):
                batch[row] = values
            yield [sample for sample, _ in group], batch


def refuse_skipped(skipped: Sequence[tuple[str, str]]) -> None:
    """Raise for the first (key, reason) of the unreadable inputs, as --strict requires.

    Raises:
        SeitError: an input was skipped.
    """
    for key, reason in skipped:
        raise SeitError(
            f"{key} cannot be read: {reason}; remove it and start again with --overwrite, or "
            "run without --strict to skip such files"
        )


def _samples(good: Iterable[Decoded]) -> Iterator[tuple[_Sample, npt.NDArray[Any]]]:
    """Yield the samples of inputs in order; the first of each input accounts for its bytes."""
    for entry in good:
        for number, sample in enumerate(entry.samples):
            yield _Sample(sample.instance, 0 if number else entry.num_bytes), sample.values


def _metadata(instances: list[Instance]) -> tuple[Mapping[str, Any], ...] | None:
    if not any(entry.metadata for entry in instances):
        return None
    return tuple(dict(entry.metadata) for entry in instances)


def _blocks(
    batches: Iterable[tuple[list[_Sample], npt.NDArray[np.unsignedinteger]]],
) -> Iterator[tuple[list[_Sample], npt.NDArray[np.unsignedinteger]]]:
    """Regroup batches of samples and their ids (n, H, W) into blocks."""
    samples: list[_Sample] = []
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
