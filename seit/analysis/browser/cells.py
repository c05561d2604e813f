"""Samples of a list or a page, read block by block; those of damaged blocks say what is wrong."""

from collections.abc import Mapping, Sequence
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
        label: label, −1 for none.
        metadata: extra columns.
        tokens: ids (H, W); None if the block is damaged.
        damage: what is wrong with the block; empty if it is intact.
    """

    row: int
    key: str = ""
    label: int = -1
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
    known = len(catalog.split.classes)
    return {
        row: Cell(
            row,
            key=columns.keys[place],
            label=label if 0 <= label < known else -1,
            metadata=columns.metadata[place],
            tokens=columns.tokens[place],
        )
        for place, (row, label) in enumerate(zip(rows, columns.labels.tolist(), strict=True))
    }
