"""Production of one shard: read inputs, tokenize them in batches of fixed shape, write."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np

from seit.errors import SeitError
from seit.ingest.batches import encode_samples, in_blocks, metadata_of, samples_of
from seit.ingest.encoder import Encoder
from seit.ingest.inputs.reader import Decoded, Reader
from seit.ingest.inputs.remarks import RemarkCounts
from seit.ingest.plan import ShardPlan
from seit.ingest.workspace import DoneShard, Workspace
from seit.shards import Block, PackedCodec, ShardWriter, TokenLayout
from seit.tokenizers import Tokenizer


class ShardMaker:
    """Maker of shards, whose contents depend only on the plan and the tokenizer."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        encoder: Encoder,
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
            encoded = encode_samples(samples_of(chain([first], good)), self.tokenizer, self.encoder)
            for samples, tokens in in_blocks(encoded):
                instances = [entry.instance for entry in samples]
                writer.write(
                    Block(
                        tokens=tokens,
                        labels=np.array([entry.label for entry in instances], dtype=np.int32),
                        keys=tuple(entry.key for entry in instances),
                        metadata=metadata_of(instances),
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
