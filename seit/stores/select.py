"""Selection of samples of a split by key and metadata.

Legend: N samples of the split.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import translate
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.errors import UsageError
from seit.lookahead import map_ahead
from seit.shards import MAX_BLOCK_TOKENS, Block, BlockColumns, Kind, Shard, Split, split_key

_SHOWN_KEYS = 5
_MAX_KEY_FILE_BYTES = 1 << 30


class KeySet:
    """Set of wanted keys; ``a.wav`` includes its windows ``a.wav#0``, ``a.wav#1`` and so on."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.wanted = frozenset(keys)
        self._found: set[str] = set()

    def holds(self, key: str, modality: str) -> bool:
        """Return True if a sample's key is wanted, and mark the wanted key as found."""
        for name in (key, split_key(key, modality)[0]):
            if name in self.wanted:
                self._found.add(name)
                return True
        return False

    @property
    def missing(self) -> tuple[str, ...]:
        """Keys not found, sorted."""
        return tuple(sorted(self.wanted - self._found))

    def check_found(self, where: object) -> None:
        """Check that all keys were found.

        Raises:
            UsageError: a key was not found; the message names the first.
        """
        missing = self.missing
        if not missing:
            return
        named = ", ".join(repr(key) for key in islice(missing, _SHOWN_KEYS))
        more = f" and {len(missing) - _SHOWN_KEYS:,} more" if len(missing) > _SHOWN_KEYS else ""
        raise UsageError(
            f"{where} holds no sample of the key {named}{more}; correct the list, or pass "
            "--missing ok to leave them out"
        )


def read_keys(path: Path) -> tuple[str, ...]:
    """Read the keys in a UTF-8 file, one per line, ignoring empty lines.

    Raises:
        UsageError: it cannot be read, or is not such a file.
    """
    try:
        if path.stat().st_size > _MAX_KEY_FILE_BYTES:
            raise UsageError(f"{path} has more than {_MAX_KEY_FILE_BYTES:,} bytes; split it up")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); name a file of keys") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 ({error.reason}); write one key per line") from error
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return tuple(line for line in lines if line)


def match_samples(
    split: Split,
    *,
    keys: KeySet | None = None,
    patterns: Sequence[str] = (),
    where: Mapping[str, str] | None = None,
) -> npt.NDArray[np.bool_]:
    """Return a mask, bool (N,), of samples that meet all conditions; each column is read once.

    Args:
        split: split of a store.
        keys: keys to accept.
        patterns: shell patterns, one of which the key must match; ``*`` also matches ``/``.
        where: metadata fields and their values: text as is, anything else as JSON.

    Raises:
        DamagedError: the split is damaged.
    """
    split.check_files(len(split))
    modality = split.store.card.tokenizer.modality
    mask = np.ones(len(split), dtype=bool)
    if keys is not None or patterns:
        matchers = [re.compile(translate(pattern)) for pattern in patterns]
        found = split.read_blocks(lambda shard, block: shard.open_block(block, Kind.KEYS))
        mask &= _flags(
            (keys is None or keys.holds(key, modality))
            and (not matchers or any(matcher.match(key) for matcher in matchers))
            for column in found
            for key in column
        )
    if where:
        entries = split.read_blocks(lambda shard, block: shard.open_block(block, Kind.METADATA))
        mask &= _flags(
            all(field in entry and _text(entry[field]) == text for field, text in where.items())
            for column in entries
            for entry in column
        )
    return mask


def chosen_blocks(
    split: Split, mask: npt.NDArray[np.bool_], *, shards: Sequence[Shard] | None = None
) -> Iterator[Block]:
    """Yield the samples of ``mask`` (N,), in order, in pieces; blocks without any are not read.

    Args:
        split: split of a store.
        mask: mask of the samples.
        shards: shards of the split to read; all by default.

    Raises:
        DamagedError: a block is damaged.
    """

    def read(place: tuple[Shard, int]) -> BlockColumns:
        shard, block = place
        return shard.open_columns(block, inside(shard, block))

    def inside(shard: Shard, block: int) -> npt.NDArray[np.intp]:
        rows = shard.rows_of(block)
        return np.flatnonzero(mask[rows.start : rows.stop])

    places = (
        (shard, block)
        for shard in (split.shards if shards is None else shards)
        for block in range(shard.num_blocks)
        if len(inside(shard, block))
    )
    block_tokens = split.store.card.block_samples * split.layout.length
    for columns in map_ahead(read, places, most=max(1, MAX_BLOCK_TOKENS // block_tokens)):
        yield columns.as_block()


def _flags(values: Iterable[bool]) -> npt.NDArray[np.bool_]:
    return np.fromiter(values, dtype=bool)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
