"""Samples of a list or a page, read block by block; those of damaged blocks say what is wrong."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.analysis.browser.catalog import Catalog
from seit.errors import DamagedError


@dataclass(frozen=True)
class Cell:
    """Sample of a list.

    Attributes:
        row: number within the split.
        key: its key; empty if the block is damaged.
        class_name: name of its class, or of several; empty for none.
        metadata: extra columns.
        tokens: ids (H, W); None if the block is damaged.
        damage: what is wrong with the block; empty if it is intact.
    """

    row: int
    key: str = ""
    class_name: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tokens: npt.NDArray[np.unsignedinteger] | None = None
    damage: str = ""


def read_cells(catalog: Catalog, rows: Sequence[int] | npt.NDArray[np.integer]) -> list[Cell]:
    """Read samples by their rows, in that order, each block once.

    Raises:
        ChangedError: another store took the place of this one.
    """
    wanted = [int(row) for row in rows]
    by_block: dict[int, list[int]] = {}
    for row in wanted:
        by_block.setdefault(catalog.block_of(row), []).append(row)
    found: dict[int, Cell] = {}
    for number, inside in by_block.items():
        found |= _read_block(catalog, number, sorted(set(inside)))
    return [found[row] for row in wanted]


def _read_block(catalog: Catalog, number: int, rows: list[int]) -> dict[int, Cell]:
    shard, block = catalog.split.block_at(number)
    start = shard.rows_of(block).start
    try:
        columns = shard.open_columns(block, np.array(rows, dtype=np.int64) - start)
    except DamagedError as error:
        catalog.damage[number] = str(error)
        return {row: Cell(row, damage=str(error)) for row in rows}
    names = _class_names(catalog, rows, columns.labels)
    return {
        row: Cell(
            row,
            key=columns.keys[place],
            class_name=name,
            metadata=columns.metadata[place],
            tokens=columns.tokens[place],
        )
        for place, (row, name) in enumerate(zip(rows, names, strict=True))
    }


def _class_names(
    catalog: Catalog, rows: list[int], labels: npt.NDArray[np.integer]
) -> Iterator[str]:
    classes, sets = catalog.split.classes, catalog.label_sets
    if sets is None:
        # A stranger's labels may be outside the classes.
        yield from (classes[label] if 0 <= label < len(classes) else "" for label in labels)
        return
    for present in sets.rows(np.array(rows)) > 0:
        yield ", ".join(classes[label] for label in np.flatnonzero(present))
