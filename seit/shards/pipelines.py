"""Stores in WebDataset pipelines: shards → blocks → samples.

dataset = seit.shards.sample_pipeline(seit.open("store")["train"], shuffle_shards=100)
dataset = dataset.shuffle(10_000).to_tuple("tokens", "label").batched(64)

WebDataset decodes nothing, since some of its decoders unpickle.
"""

import io
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from seit.errors import DamagedError, UsageError
from seit.files import RangeFile
from seit.shards.blocks import MEMBER_SUFFIXES, decode_keys, decode_labels, decode_metadata
from seit.shards.frames import Kind
from seit.shards.split import Split
from seit.shards.store import Store

_MAGIC, _MAGIC_OFFSET = b"ustar", 257
_READ_BYTES = 1 << 20


class BlockDecoder:
    """Pipeline stage: decode members of blocks, as WebDataset yields them, into samples.

    Takes dictionaries with the bytes of ``tokens``, ``labels``, ``keys`` and perhaps ``metadata``;
    yields one dictionary per sample: ``__key__`` str, ``tokens`` ids (H, W), ``label`` int (−1 for
    none) and ``metadata``. Picklable, for workers.

    Raises:
        DamagedError: a block is damaged; the message names it.
        ChangedError: another store took the place of the opened one.
    """

    def __init__(self, store: Store) -> None:
        self._codec = store.codec
        self._sealed = store.sealed

    def __call__(self, blocks: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the samples of every block."""
        for block in blocks:
            self._sealed.check()  # must follow the read
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


class _ShardOpener:
    """Pipeline stage: open shards through the store's own folder.

    ``webdataset.gopen`` would run a command for each URL, would not retry, and would unpack a
    compressed tar without limit.
    """

    def __init__(self, store: Store) -> None:
        self._files = store.files

    def __call__(self, shards: Iterable[Mapping[str, str]]) -> Iterator[dict[str, Any]]:
        """Yield the address and the open file of every shard."""
        for shard in shards:
            name = shard["url"]
            size = self._files.size(name)
            if self._files.read(name, _MAGIC_OFFSET, len(_MAGIC)) != _MAGIC or not (
                self._files.read(name, 0, 1).isdigit()  # names of blocks begin with a digit
            ):
                raise DamagedError(f"{self._files.locate(name)} is not a tar of a store")
            raw = RangeFile(partial(self._files.read, name), size)
            with io.BufferedReader(raw, _READ_BYTES) as stream:
                yield {"url": self._files.locate(name), "stream": stream}


def sample_pipeline(split: Split, *, shuffle_shards: int = 0, seed: int = 0) -> Any:
    """Build a WebDataset pipeline of a split's samples, for your own training loop.

    Shards are divided among ranks and the workers of a ``DataLoader``. It yields the dictionaries
    of :class:`BlockDecoder`; chain ``.shuffle``, ``.map``, ``.batched`` and so on to it.

    Args:
        split: split of a store of tars, on a disk or behind a URL.
        shuffle_shards: shards in the shuffle buffer; 0 keeps their order.
        seed: seed of that shuffle.

    Raises:
        UsageError: its shards are not tars, or it has no samples.
    """
    # A late import: webdataset loads torch.
    import webdataset as wds
    from webdataset.tariterators import group_by_keys, tar_file_expander

    names = _shard_names(split)
    if not names:
        raise UsageError(f"split {split.name!r} of {split.store.folder} has no samples")
    pipeline = wds.FluidWrapper(wds.SimpleShardList(names))
    stages = (
        *([wds.detshuffle(shuffle_shards, seed=seed)] if shuffle_shards else []),
        wds.split_by_node,
        wds.split_by_worker,
        _ShardOpener(split.store),
        tar_file_expander,
        group_by_keys,
        BlockDecoder(split.store),
    )
    for stage in stages:
        pipeline.append(stage)
    return pipeline


def shard_urls(split: Split) -> list[str]:
    """Return the addresses of a split's tars, without those that hold no samples.

    Raises:
        UsageError: its shards are not tars.
    """
    return [split.store.folder.locate(name) for name in _shard_names(split)]


def _shard_names(split: Split) -> list[str]:
    if split.store.card.container != "wds":
        raise UsageError(
            f"the shards of {split.store.folder} are not tars; convert it with --container wds"
        )
    return [shard.record.file for shard in split.shards if shard.record.samples]
