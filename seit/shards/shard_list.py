"""Shards of a split, made when they are asked for: a split may have a hundred thousand."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Generic, TypeVar, overload

from seit.shards.shard import Shard

_KEPT = 1024
"""Most shards kept, with the places of their blocks; a window reads from far fewer."""
_Shard = TypeVar("_Shard", bound=Shard)


class ShardList(Sequence[_Shard], Generic[_Shard]):
    """Sequence of ``num_shards`` shards, ``build(number)``; the last used ones are kept."""

    def __init__(self, num_shards: int, build: Callable[[int], _Shard]) -> None:
        self._num_shards = num_shards
        self._build = build
        self._find = lru_cache(maxsize=_KEPT)(build)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._num_shards, self._build)

    def __len__(self) -> int:
        return self._num_shards

    @overload
    def __getitem__(self, number: int) -> _Shard: ...
    @overload
    def __getitem__(self, number: slice) -> "list[_Shard]": ...
    def __getitem__(self, number: int | slice) -> "_Shard | list[_Shard]":
        places = range(self._num_shards)[number]
        if isinstance(places, range):
            return [self._find(place) for place in places]
        return self._find(places)
