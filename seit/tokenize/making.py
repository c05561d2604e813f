"""One shard of a job: its inputs are read, tokenized in batches of one shape, and written.

Shape letters: B encode batch, S image side, H W token grid.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from seit.errors import SeitError
from seit.shards import BLOCK_SAMPLES, Block, PackedCodec, ShardWriter, TokenLayout
from seit.tokenize.pixels import Decoded, PixelReader
from seit.tokenize.plan import ShardPlan
from seit.tokenize.sources import Instance
from seit.tokenize.workspace import DoneShard, Workspace
from seit.tokenizers import Tokenizer

ENCODE_BATCH = 64
"""Images per call of the tokenizer; the last batch of a shard is padded to it, so that the
arithmetic is the same whoever makes the shard."""


class ShardMaker:
    """Makes shards; what a shard holds depends on its plan and the tokenizer alone."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        reader: PixelReader,
        workspace: Workspace,
        *,
        strict: bool,
        advance: Callable[[int, int], None],
    ) -> None:
        """``advance`` is told of inputs done and, among them, inputs skipped."""
        self.tokenizer = tokenizer
        self.reader = reader
        self.workspace = workspace
        self.layout = TokenLayout(grid=tokenizer.grid, num_codes=tokenizer.num_codes)
        self._strict = strict
        self._advance = advance

    def make(self, plan: ShardPlan) -> DoneShard:
        """Make one shard and note that it is done.

        Raises:
            SeitError: an input is unreadable and ``strict`` was asked for, or the disk is full.
        """
        skipped: list[tuple[str, str]] = []
        label_counts: Counter[int] = Counter()
        source_bytes = 0
        writer = ShardWriter(
            self.workspace.shards,
            split=plan.split,
            index=plan.index,
            codec=PackedCodec(self.layout),
        )
        good = self._good_inputs(plan, skipped)
        first = next(good, None)
        if first is None:
            record = DoneShard(None, tuple(skipped), {}, 0)
            self.workspace.write_done(plan, record)
            return record
        with writer:
            for entries, tokens in _blocks(self._encoded(chain([first], good))):
                instances = [entry.instance for entry in entries]
                writer.write(
                    Block(
                        tokens=tokens,
                        labels=np.array([entry.label for entry in instances], dtype=np.int32),
                        keys=tuple(entry.key for entry in instances),
                        metadata=_metadata(instances),
                    )
                )
                label_counts.update(entry.label for entry in instances)
                source_bytes += sum(entry.num_bytes for entry in entries)
        record = DoneShard(writer.record, tuple(skipped), dict(label_counts), source_bytes)
        self.workspace.write_done(plan, record)
        return record

    def _good_inputs(self, plan: ShardPlan, skipped: list[tuple[str, str]]) -> Iterator[Decoded]:
        for entry in self.reader.read(plan.instances):
            if entry.pixels is None:
                skipped.append((entry.instance.key, entry.reason))
                self.refuse_skipped(skipped)
            self._advance(1, 0 if entry.pixels is not None else 1)
            if entry.pixels is not None:
                yield entry

    def refuse_skipped(self, skipped: Sequence[tuple[str, str]]) -> None:
        """Stop at the first (key, reason) of unreadable inputs, if that is asked for."""
        if self._strict and skipped:
            key, reason = skipped[0]
            raise SeitError(
                f"{key} cannot be read: {reason}; remove it and start again with --overwrite, or "
                "run without --strict to skip such files"
            )

    def _encoded(
        self, good: Iterable[Decoded]
    ) -> Iterator[tuple[list[Decoded], npt.NDArray[np.unsignedinteger]]]:
        """Tokenize in batches of a fixed shape: entries and their ids (n, H, W)."""
        side = self.tokenizer.image_size
        images_BSS3 = np.zeros((ENCODE_BATCH, side, side, 3), dtype=np.uint8)
        entries: list[Decoded] = []
        for entry in good:
            assert entry.pixels is not None, "only decoded inputs come here"
            images_BSS3[len(entries)] = entry.pixels
            entries.append(Decoded(entry.instance, entry.num_bytes, None))
            if len(entries) == ENCODE_BATCH:
                yield entries, self._encode(images_BSS3)
                entries = []
        if entries:
            images_BSS3[len(entries) :] = 0
            yield entries, self._encode(images_BSS3)[: len(entries)]

    def _encode(self, images_BSS3: npt.NDArray[np.uint8]) -> npt.NDArray[np.unsignedinteger]:
        with torch.inference_mode():
            tokens = self.tokenizer.encode(torch.from_numpy(images_BSS3))
        ids: npt.NDArray[np.unsignedinteger] = tokens.cpu().numpy().astype(self.layout.dtype)
        return ids


def _metadata(instances: list[Instance]) -> tuple[Mapping[str, Any], ...] | None:
    if not any(entry.metadata for entry in instances):
        return None
    return tuple(dict(entry.metadata) for entry in instances)


def _blocks(
    batches: Iterable[tuple[list[Decoded], npt.NDArray[np.unsignedinteger]]],
) -> Iterator[tuple[list[Decoded], npt.NDArray[np.unsignedinteger]]]:
    """Regroup batches of entries and their ids (n, H, W) into blocks."""
    entries: list[Decoded] = []
    tokens: list[npt.NDArray[np.unsignedinteger]] = []
    for batch_entries, batch_tokens in batches:
        entries += batch_entries
        tokens.append(batch_tokens)
        if len(entries) >= BLOCK_SAMPLES:
            joined = np.concatenate(tokens)
            yield entries[:BLOCK_SAMPLES], joined[:BLOCK_SAMPLES]
            entries, tokens = entries[BLOCK_SAMPLES:], [joined[BLOCK_SAMPLES:]]
    if entries:
        yield entries, np.concatenate(tokens)
