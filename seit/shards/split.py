"""A split of a store: its samples one by one, and its columns as a whole.

Legend: N samples, n chosen ones of them, H W grid, S bytes per packed sample.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, groupby, islice
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex, TypeVar, overload

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError, SeitError, UsageError
from seit.lookahead import map_ahead
from seit.printable import printable
from seit.shards.codecs import MAX_BLOCK_TOKENS, Codec
from seit.shards.folders import LocalFolder
from seit.shards.frames import Kind
from seit.shards.label_sets import LabelSets, has_label_sets, read_label_sets
from seit.shards.shard import BlockColumns, DamagedBlock, Shard
from seit.shards.tar_shard import open_tar_shards
from seit.shards.zarr import ZarrGroup, open_zarr_shards

if TYPE_CHECKING:
    from seit.shards.store import Store

_DENSE_SHARE = 0.25
"""Smallest share of a block's samples whose decoding from a local disk is worth threads."""
_UNSEEN_BYTES = 1 << 26
"""Memory for samples above which the sizes of their files are checked first."""
_UNSEEN_BLOCKS = 1 << 20
"""Most blocks trusted, or reported as damaged, before shards are checked to hold so many."""
_Item = TypeVar("_Item")
_Value = TypeVar("_Value")


@dataclass(frozen=True, repr=False)
class Sample:
    """One instance: ids (H, W), label (−1 for none), key, and its extra columns.

    A notebook shows its picture if the store's tokenizer is available.
    """

    tokens: npt.NDArray[np.unsignedinteger]
    label: int
    key: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    store: "Store | None" = field(default=None, compare=False)
    """Store that it was read from; left out of copies and pickles."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Sample, (self.tokens, self.label, self.key, self.metadata)

    def __repr__(self) -> str:
        height, width = self.tokens.shape
        return (
            f"<sample {printable(self.key)}: label {self.label}, {self.tokens.dtype} ids "
            f"{height}×{width}>"
        )

    def _repr_html_(self) -> str:
        from seit.report import summary_table

        height, width = self.tokens.shape
        classes = () if self.store is None else self.store.classes
        is_known = 0 <= self.label < len(classes)
        rows = [
            ("label", f"{self.label}: {classes[self.label]}" if is_known else self.label),
            ("tokens", f"{self.tokens.dtype}, {height}×{width}"),
            *((str(name), value) for name, value in self.metadata.items()),
        ]
        return summary_table(self.key, rows, picture=self._picture())

    def _picture(self) -> "npt.NDArray[np.uint8] | None":
        """Decode the tokens to a picture uint8 (height, width, 3); None if that is impossible."""
        if self.store is None:
            return None
        from seit.tokenizers import decode_pictures

        try:
            pictures = decode_pictures(self.store.tokenizer, self.tokens[None])
        except SeitError:
            return None
        first: npt.NDArray[np.uint8] = pictures[0]
        return first


class _BlockRows(NamedTuple):
    """Rows (n,) of a block, and their places int (n,) in what was asked for."""

    shard: int
    block: int
    rows: npt.NDArray[np.int64]
    places: npt.NDArray[np.intp]


class TokenArray:
    """Tokens of a split as an array (N, H, W) that is read on demand.

    ``tokens[i]`` is (H, W); ``tokens[a:b]`` and ``tokens[[…]]`` are (n, H, W); uint16, or uint32
    if K > 65,536.
    """

    def __init__(self, split: "Split") -> None:
        self._split = split

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (N, H, W)."""
        return (len(self._split), *self._split.grid)

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(
        self, index: SupportsIndex | slice | Sequence[int] | npt.NDArray[np.integer]
    ) -> npt.NDArray[np.unsignedinteger]:
        if isinstance(index, slice):
            wanted = range(*index.indices(len(self)))
            self._split.check_files(len(wanted) * np.dtype(np.int64).itemsize)
            positions = np.arange(wanted.start, wanted.stop, wanted.step)
            return self._split.read_tokens(positions)
        if isinstance(index, SupportsIndex) and not getattr(index, "ndim", 0):
            position = self._split.checked_index(index)
            row: npt.NDArray[np.unsignedinteger] = self._split.read_tokens(np.array([position]))[0]
            return row
        positions = np.asarray(index)
        if positions.dtype == bool:
            if positions.shape != (len(self),):
                raise UsageError(f"a mask of shape {positions.shape} does not fit {len(self)} rows")
            positions = np.flatnonzero(positions)
        if positions.ndim != 1 or (positions.size and positions.dtype.kind not in "iu"):
            raise UsageError("tokens take an integer, a slice, or a 1-d array of integers")
        outside = (positions < -len(self)) | (positions >= len(self))
        if outside.any():
            raise IndexError(f"index {positions[outside][0]} is outside {len(self)} samples")
        positions = positions.astype(np.int64)
        return self._split.read_tokens(np.where(positions < 0, positions + len(self), positions))

    def __iter__(self) -> Iterator[npt.NDArray[np.unsignedinteger]]:
        """Iterate over the grids (H, W) of all intact samples, reading each block once."""
        for tokens in self._split.read_blocks(lambda s, b: s.open_block(b, Kind.TOKENS)):
            yield from tokens

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        """Return all ids (N, H, W), for ``np.asarray``."""
        if copy is False:
            raise ValueError("tokens are read from a store: they cannot become an array uncopied")
        return self[:].astype(dtype or self._split.layout.dtype, copy=False)


class Split(Sequence[Sample]):
    """Split of a store: a sequence of ``Sample``, and whole columns of it.

    Reading a damaged block raises an error. In a store opened with ``on_damage="skip"``,
    iteration, ``labels``, ``keys`` and ``packed()`` leave out all samples of damaged blocks, the
    same ones everywhere; ``rows`` lists the remaining ones. Indexing still counts all samples, and
    raises for damaged ones.
    """

    def __init__(self, store: "Store", name: str) -> None:
        self.store = store
        self.name = name
        self.layout = store.card.layout
        self.shards = self._open_shards()

    @property
    def grid(self) -> tuple[int, int]:
        """Token grid (H, W)."""
        return self.layout.grid

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label indexes them."""
        return self.store.card.classes

    @property
    def tokens(self) -> TokenArray:
        """Ids as an array (N, H, W), read on demand."""
        return TokenArray(self)

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Labels int64 (N,), −1 for an unlabeled sample."""
        num_samples = len(self) - self.skipped_samples
        self.check_files(num_samples * np.dtype(np.int64).itemsize)
        labels = np.empty(num_samples, dtype=np.int64)
        start = 0
        for part in self.read_blocks(lambda shard, block: shard.open_block(block, Kind.LABELS)):
            labels[start : start + len(part)] = part
            start += len(part)
        if labels.size and not -1 <= labels.min() <= labels.max() < len(self.classes):
            raise DamagedError(
                f"split {self.name!r} holds labels from {labels.min()} to {labels.max()} where the "
                f"card names {len(self.classes)} classes"
            )
        return labels

    @cached_property
    def label_sets(self) -> LabelSets | None:
        """Several labels per sample; None in a split of single labels."""
        return read_label_sets(self) if self.has_label_sets else None

    @cached_property
    def has_label_sets(self) -> bool:
        """True if samples have several labels; see `seit.shards.label_sets`."""
        return has_label_sets(self)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Keys of all samples, in order, in memory: about 110 bytes each; see `read_keys`."""
        parts = self.read_blocks(lambda shard, block: shard.open_block(block, Kind.KEYS))
        return tuple(chain.from_iterable(parts))

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Numbers of the samples in iteration and whole columns: int64 (n,)."""
        self.check_files(len(self) * np.dtype(np.int64).itemsize)
        parts = [
            np.arange(rows.start, rows.stop, dtype=np.int64)
            for rows in (shard.rows_of(block) for shard, block in self.intact_blocks())
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    @cached_property
    def damaged_blocks(self) -> tuple[DamagedBlock, ...]:
        """Blocks with a damaged column; costs reading and decoding the whole split.

        Raises:
            DamagedError: the block index or the codec's tables are damaged, so that no block can
                be checked; or very many blocks are listed and nearly none is intact.
            SeitError: a shard could not be read for another reason than damage.
        """
        found = self._map(lambda place: place[0].find_damage(place[1]), self.blocks())
        damaged = tuple(islice(filter(None, found), _UNSEEN_BLOCKS + 1))
        if len(damaged) > _UNSEEN_BLOCKS:
            raise DamagedError(
                f"more than {_UNSEEN_BLOCKS:,} blocks of {self!r} are damaged; restore the store "
                "from a copy"
            )
        return damaged

    @property
    def skipped_samples(self) -> int:
        """Number of samples that iteration and whole columns leave out, in damaged blocks."""
        if not self.store.skips_damage:
            return 0
        return sum(len(damaged.rows) for damaged in self.damaged_blocks)

    @cached_property
    def block_sizes(self) -> npt.NDArray[np.int64]:
        """Samples of every block according to the card, in order: int64 (m,).

        Raises:
            DamagedError: there are so many that the shards were checked, and these disagree.
        """
        if int(self._first_blocks[-1]) > _UNSEEN_BLOCKS:
            for shard in self.shards:
                shard.check_places(Kind.TOKENS)
        per_block = self.store.card.block_samples
        sizes = np.full(int(self._first_blocks[-1]), per_block, dtype=np.int64)
        rests = np.diff(self._starts) % per_block
        partial_shards = np.flatnonzero(rests)
        sizes[self._first_blocks[partial_shards + 1] - 1] = rests[partial_shards]
        return sizes

    def block_at(self, number: int) -> tuple[Shard, int]:
        """Return the shard that holds the split's block ``number``, and its number in the shard."""
        shard = int(np.searchsorted(self._first_blocks, number, side="right")) - 1
        return self.shards[shard], number - int(self._first_blocks[shard])

    @cached_property
    def _first_blocks(self) -> npt.NDArray[np.int64]:
        num_blocks = -(-np.diff(self._starts) // self.store.card.block_samples)
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(num_blocks)])

    def check_files(self, num_bytes: int) -> None:
        """Compare the sizes of all files with the card's before allocating memory for samples.

        Args:
            num_bytes: memory to allocate; small amounts skip the check.

        Raises:
            DamagedError: a file is missing, or its size differs from the card's; unless the store
                skips damage, for which all was read before.
        """
        if num_bytes > _UNSEEN_BYTES and not self.store.skips_damage:
            _ = self._sizes_hold

    @cached_property
    def _sizes_hold(self) -> bool:
        for _ in map_ahead(lambda shard: shard.check_sizes(), self.shards):
            pass
        return True

    def blocks(self) -> Iterator[tuple[Shard, int]]:
        """Iterate over all blocks in the card, in order, as (shard, block number within it)."""
        for shard in self.shards:
            for block in range(shard.num_blocks):
                yield shard, block

    def intact_blocks(self) -> Iterator[tuple[Shard, int]]:
        """Iterate over all blocks, or only the intact ones if the store skips damage."""
        skipped: set[tuple[str, int]] = set()
        if self.store.skips_damage:
            skipped = {(damaged.file, damaged.block) for damaged in self.damaged_blocks}
        for shard, block in self.blocks():
            if (shard.record.file, block) not in skipped:
                yield shard, block

    def packed(self) -> npt.NDArray[np.uint8]:
        """Return all packed samples, uint8 (N, S), in memory; decoded by several threads.

        Raises:
            SeitError: they do not fit into memory.
        """
        num_samples = len(self) - self.skipped_samples
        self.check_files(num_samples * self.layout.sample_bytes)
        try:
            out = np.empty((num_samples, self.layout.sample_bytes), dtype=np.uint8)
        except MemoryError as error:
            raise SeitError(
                f"split {self.name!r} of {self.store.folder} takes "
                f"{num_samples * self.layout.sample_bytes:,} bytes, more than there is memory for"
            ) from error
        start = 0
        for packed_nS in self.read_blocks(lambda shard, block: shard.open_packed(block)):
            out[start : start + len(packed_nS)] = packed_nS
            start += len(packed_nS)
        return out

    def read_blocks(self, read: Callable[[Shard, int], _Value]) -> Iterator[_Value]:
        """Yield ``read(shard, block)`` of each intact block, in order, by several threads."""
        return self._map(lambda place: read(*place), self.intact_blocks())

    def read_tokens(self, positions: npt.NDArray[np.integer]) -> npt.NDArray[np.unsignedinteger]:
        """Read ids (n, H, W) at int ``positions`` (n,), each in 0 … N−1; reads each block once."""
        self.check_files(len(positions) * self.layout.length * self.layout.dtype.itemsize)
        out = np.empty((len(positions), *self.grid), dtype=self.layout.dtype)
        groups = self._by_block(positions)

        def read(group: _BlockRows) -> npt.NDArray[np.unsignedinteger]:
            return self.shards[group.shard].open_token_rows(group.block, group.rows)

        for group, tokens_nHW in zip(groups, self._map_groups(read, groups), strict=True):
            out[group.places] = tokens_nHW
        return out

    def read_keys(self, positions: npt.NDArray[np.integer]) -> list[str]:
        """Read the keys at int ``positions`` (n,), each in 0 … N−1; reads each block once."""
        groups = self._by_block(positions)

        def read(group: _BlockRows) -> list[str]:
            keys = self.shards[group.shard].open_block(group.block, Kind.KEYS)
            return [keys[row] for row in group.rows.tolist()]

        out = [""] * len(positions)
        for group, keys in zip(groups, self._map_groups(read, groups), strict=True):
            for place, key in zip(group.places.tolist(), keys, strict=True):
                out[place] = key
        return out

    def _by_block(self, positions: npt.NDArray[np.integer]) -> "list[_BlockRows]":
        """Group ``positions`` (n,) by block, in stored order."""
        if not len(positions):
            return []
        numbers = np.searchsorted(self._starts, positions, side="right") - 1
        rows = positions - self._starts[numbers]
        blocks = rows // self.store.card.block_samples
        places = self._first_blocks[numbers] + blocks
        order = np.argsort(places, kind="stable")
        starts = np.flatnonzero(np.diff(places[order], prepend=-1))
        return [
            _BlockRows(
                shard=int(numbers[chosen[0]]),
                block=int(blocks[chosen[0]]),
                rows=rows[chosen] % self.store.card.block_samples,
                places=chosen,
            )
            for chosen in np.split(order, starts[1:])
        ]

    def _map_groups(
        self, read: "Callable[[_BlockRows], _Value]", groups: "list[_BlockRows]"
    ) -> Iterator[_Value]:
        """Map by threads, unless few rows of each block are read from a local disk."""
        num_rows = sum(len(group.rows) for group in groups)
        is_sparse = _DENSE_SHARE * self.store.card.block_samples * len(groups) > num_rows
        is_quick = is_sparse and isinstance(self.store.folder, LocalFolder)
        return map(read, groups) if is_quick else self._map(read, groups)

    def checked_index(self, index: SupportsIndex) -> int:
        """Resolve an index that may be negative.

        Raises:
            IndexError: it lies outside the split.
        """
        position = index.__index__()
        if not -len(self) <= position < len(self):
            raise IndexError(f"index {position} is outside {len(self)} samples")
        return position % len(self)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "list[Sample]": ...
    def __getitem__(self, index: int | slice) -> "Sample | list[Sample]":
        if isinstance(index, slice):
            return list(self._samples(range(*index.indices(len(self)))))
        return next(self._samples([self.checked_index(index)]))

    def __iter__(self) -> Iterator[Sample]:
        """Iterate over all samples of intact blocks, reading each block once."""
        for columns in self.read_blocks(lambda shard, block: shard.open_columns(block)):
            yield from _as_samples(columns, self.store)

    def __repr__(self) -> str:
        height, width = self.grid
        return (
            f"<split {printable(self.name)} of {printable(self.store.folder)}: {len(self):,} "
            f"samples, grid {height}×{width}>"
        )

    def _repr_html_(self) -> str:
        from seit.report import summary_table

        height, width = self.grid
        rows = [
            ("store", self.store.folder),
            ("samples", f"{len(self):,}"),
            ("grid", f"{height}×{width}"),
            ("classes", f"{len(self.store.classes):,}"),
        ]
        return summary_table(f"split {self.name}", rows)

    def _open_shards(self) -> Sequence[Shard]:
        folder, card = self.store.files, self.store.card
        if card.container == "zarr":
            return open_zarr_shards(folder, ZarrGroup.of(card, self.name), self._find_codec)
        return open_tar_shards(folder, card, self.name, self._find_codec)

    def _find_codec(self) -> Codec:
        return self.store.codec

    def _map(self, function: Callable[[_Item], _Value], items: Iterable[_Item]) -> Iterator[_Value]:
        """Map by threads, fewer for large blocks: together they hold at most one largest block."""
        block_tokens = self.store.card.block_samples * self.layout.length
        return map_ahead(function, items, most=max(1, MAX_BLOCK_TOKENS // block_tokens))

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        samples = (record.samples for record in self.store.card.splits[self.name])
        return np.cumsum([0, *samples], dtype=np.int64)

    def _samples(self, positions: Iterable[int]) -> Iterator[Sample]:
        """Yield the samples at ``positions`` (0 … N−1); adjacent ones share one read of a block."""
        starts = self._starts.tolist()

        def place_of(position: int) -> tuple[int, int]:
            number = bisect_right(starts, position) - 1
            return number, (position - starts[number]) // self.store.card.block_samples

        for (number, block), group in groupby(positions, key=place_of):
            shard = self.shards[number]
            rows = np.fromiter(group, dtype=np.int64) - shard.rows_of(block).start
            yield from _as_samples(shard.open_columns(block, rows), self.store)


def _as_samples(columns: BlockColumns, store: "Store") -> Iterator[Sample]:
    for row in range(len(columns)):
        yield Sample(
            columns.tokens[row].copy(),
            int(columns.labels[row]),
            columns.keys[row],
            columns.metadata[row],
            store,
        )
