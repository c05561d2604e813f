"""Division of a group's arrays into chunks and shards, and the names of their files.

Legend: N samples of the split, n rows of a chunk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seit.errors import DamagedError, UsageError
from seit.shards.blocks import MEMBER_SUFFIXES
from seit.shards.card import Card, FileRecord, ShardRecord
from seit.shards.codecs import MAX_BLOCK_TOKENS, TokenLayout
from seit.shards.frames import MAX_COUNT, Kind

SHARD_SAMPLES = 8192
"""Samples per shard; only the last shard of a split may hold fewer."""
MAX_SHARD_BLOCKS = 1 << 12
"""Most blocks in a shard: its index takes at most 64 KiB."""
METADATA_NAME = "zarr.json"


@dataclass(frozen=True)
class Chunking:
    """Division of the samples of a split into chunks and shards.

    Attributes:
        num_samples: samples of the split, N.
        block_rows: rows of a chunk, n; a chunk is a block.
        blocks_per_shard: chunks of a full shard.
    """

    num_samples: int
    block_rows: int
    blocks_per_shard: int

    @classmethod
    def plan(cls, num_samples: int, *, block_samples: int, shard_samples: int) -> "Chunking":
        """Divide a split; blocks and shards are never larger than the split.

        Raises:
            UsageError: a shard is not a whole number of blocks, or over the limits.
        """
        if not 1 <= block_samples <= MAX_COUNT:
            raise UsageError(f"a block holds 1 to {MAX_COUNT} samples, not {block_samples}")
        blocks, rest = divmod(shard_samples, block_samples)
        if rest or not 1 <= blocks <= MAX_SHARD_BLOCKS:
            raise UsageError(
                f"a shard of {shard_samples} samples is not 1 to {MAX_SHARD_BLOCKS} blocks of "
                f"{block_samples} samples; choose a multiple of {block_samples}"
            )
        return cls(
            num_samples=num_samples,
            block_rows=max(1, min(block_samples, num_samples)),
            blocks_per_shard=max(1, min(blocks, -(-num_samples // block_samples))),
        )

    @property
    def shard_rows(self) -> int:
        """Number of rows in a full shard."""
        return self.block_rows * self.blocks_per_shard

    @property
    def num_shards(self) -> int:
        """Number of shards of each array."""
        return -(-self.num_samples // self.shard_rows)

    def samples_of_shard(self, shard: int) -> int:
        """Return the number of samples in a shard."""
        return min(self.shard_rows, self.num_samples - shard * self.shard_rows)


@dataclass(frozen=True)
class ZarrGroup:
    """Group of a split, as described by a card.

    Attributes:
        name: its folder within the store.
        chunking: division of its arrays.
        shards: the card's shards of the split: the files of ``tokens``, in order.
        files: the files of each array, in order; ``metadata`` only if there is such an array.
    """

    name: str
    chunking: Chunking
    shards: tuple[ShardRecord, ...]
    files: Mapping[Kind, tuple[FileRecord, ...]]

    @classmethod
    def of(cls, card: Card, split: str) -> "ZarrGroup":
        """Return the group of a split from the card of its store.

        Raises:
            DamagedError: the card is not one that the writer makes.
        """
        return cls.from_records(
            group_name(split),
            card.splits[split],
            card.listed,
            layout=card.layout,
            block_samples=card.block_samples,
        )

    @classmethod
    def from_records(
        cls,
        name: str,
        shards: Sequence[ShardRecord],
        listed: Mapping[str, FileRecord],
        *,
        layout: TokenLayout,
        block_samples: int,
    ) -> "ZarrGroup":
        """Return the group in the folder ``name`` from the card's shards and other files by path.

        Raises:
            DamagedError: the records are not ones that the writer makes.
        """
        chunking = _recorded_chunking(name, shards, layout, block_samples)
        kinds = [
            kind
            for kind in MEMBER_SUFFIXES
            if kind is not Kind.METADATA or document_file(name, kind) in listed
        ]
        columns = {
            kind: [shard_file(name, kind, shard) for shard in range(len(shards))]
            for kind in kinds
            if kind is not Kind.TOKENS
        }
        documents = [document_file(name, kind) for kind in (None, *kinds)]
        for file in (*documents, *(file for files in columns.values() for file in files)):
            if file not in listed:
                raise DamagedError(f"the card names no {file}; restore the store from a copy")
        return cls(
            name=name,
            chunking=chunking,
            shards=tuple(shards),
            files={
                Kind.TOKENS: tuple(shards),
                **{kind: tuple(listed[file] for file in files) for kind, files in columns.items()},
            },
        )

    @property
    def has_metadata(self) -> bool:
        """True if there is an array ``metadata``."""
        return Kind.METADATA in self.files


def group_name(split: str) -> str:
    """Return the folder of a split's group within the store."""
    return f"{split}.zarr"


def document_file(group: str, kind: Kind | None) -> str:
    """Return the path of the `zarr.json` of an array or of the group, relative to the store."""
    array = f"{MEMBER_SUFFIXES[kind]}/" if kind else ""
    return f"{group}/{array}{METADATA_NAME}"


def shard_file(group: str, kind: Kind, shard: int) -> str:
    """Return the path of a shard of one array, relative to the store."""
    tail = "/0/0" if kind is Kind.TOKENS else ""
    return f"{group}/{MEMBER_SUFFIXES[kind]}/c/{shard}{tail}"


def _recorded_chunking(
    group: str, records: Sequence[ShardRecord], layout: TokenLayout, block_samples: int
) -> Chunking:
    """Return the chunking of a split, from the card's ``records`` of its shards."""
    num_samples = sum(record.samples for record in records)
    blocks = -(-num_samples // block_samples)
    if len(records) > 1:
        blocks = records[0].samples // block_samples
    if blocks > MAX_SHARD_BLOCKS:
        raise DamagedError(
            f"{group}: shards of {blocks} blocks are over the limit of {MAX_SHARD_BLOCKS}; restore "
            "the store from a copy"
        )
    chunking = Chunking.plan(
        num_samples,
        block_samples=block_samples,
        shard_samples=max(1, blocks) * block_samples,
    )
    if chunking.block_rows * layout.length > MAX_BLOCK_TOKENS:
        raise DamagedError(
            f"{group}: blocks of {chunking.block_rows} samples of {layout.length} tokens are "
            "over the limits; restore the store from a copy"
        )
    expected = [
        (shard_file(group, Kind.TOKENS, shard), chunking.samples_of_shard(shard))
        for shard in range(min(chunking.num_shards, len(records) + 1))
    ]
    if [(record.file, record.samples) for record in records] != expected:
        raise DamagedError(
            f"{group}: the card's shards are not the files of a Zarr array that is cut evenly; "
            "restore the store from a copy"
        )
    return chunking
