"""Stores in a WebDataset pipeline of one's own: blocks → samples.

store = seit.open("store")
dataset = wds.WebDataset(seit.shards.shard_urls(store["train"]), shardshuffle=100)
dataset = dataset.compose(seit.shards.BlockDecoder(store)).shuffle(10_000)
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from seit.errors import DamagedError, UsageError
from seit.shards.blocks import MEMBER_SUFFIXES, decode_keys, decode_labels, decode_metadata
from seit.shards.frames import Kind
from seit.shards.split import Split
from seit.shards.store import Store


class BlockDecoder:
    """Turns the members of blocks, as a WebDataset yields them, into samples.

    A stage for ``compose``: takes dictionaries with the bytes of ``tokens``, ``labels``, ``keys``
    and perhaps ``metadata``, and yields a dictionary a sample: ``__key__`` str, ``tokens`` ids
    (H, W), ``label`` int (−1 for none) and ``metadata``. It can be pickled, for worker processes.

    Raises:
        DamagedError: a block is not what was written; the message names it.
        ChangedError: another store took the place of the one that was opened.
    """

    def __init__(self, store: Store) -> None:
        self._codec = store.codec
        self._sealed = store.sealed

    def __call__(self, blocks: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the samples of every block."""
        for block in blocks:
            self._sealed.check()  # after the block was read
            name = f"{block.get('__url__', 'a tar')}, block {block.get('__key__')}"
            try:
                yield from self._samples(block)
            except KeyError as error:
                raise DamagedError(
                    f"{name} lacks its {error}; is it a shard of a store?"
                ) from error
            except DamagedError as error:
                raise DamagedError(f"{name}: {error}") from error

    def _samples(self, block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        tokens = self._codec.decode(block[MEMBER_SUFFIXES[Kind.TOKENS]])
        labels = decode_labels(block[MEMBER_SUFFIXES[Kind.LABELS]])
        keys = decode_keys(block[MEMBER_SUFFIXES[Kind.KEYS]])
        stored = block.get(MEMBER_SUFFIXES[Kind.METADATA])
        metadata = ({},) * len(keys) if stored is None else decode_metadata(stored)
        if not len(tokens) == len(labels) == len(keys) == len(metadata):
            raise DamagedError("its columns hold different numbers of samples")
        for row, key in enumerate(keys):
            yield {
                "__key__": key,
                "tokens": tokens[row].copy(),
                "label": int(labels[row]),
                "metadata": metadata[row],
            }


def shard_urls(split: Split) -> list[str]:
    """The addresses of a split's tars, those without samples left out.

    Raises:
        UsageError: its shards are no tars.
    """
    if split.store.card.container != "wds":
        raise UsageError(
            f"the shards of {split.store.folder} are no tars; convert it with --container wds"
        )
    return [
        split.store.folder.locate(shard.record.file)
        for shard in split.shards
        if shard.record.samples
    ]
