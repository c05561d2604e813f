"""Copy of a store in which some samples of a split are held out as a split of their own."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.errors import UsageError
from seit.progress import Count
from seit.shards import Location, Store
from seit.stores.place import work_folder
from seit.stores.recode import CONTAINERS
from seit.stores.rewrite import (
    Contents,
    Rewritten,
    common_shard_samples,
    describe,
    edited_job,
    share_of,
    write_contents,
)
from seit.stores.select import chosen_blocks


def hold_out_samples(
    store: Store,
    target: Location,
    *,
    split: str,
    rows: npt.NDArray[np.integer],
    name: str,
    note: Mapping[str, Any] | None = None,
    progress: Count | None = None,
) -> Rewritten:
    """Write one split of a store as two: whole or not at all. All samples keep order and labels.

    Args:
        store: the open store.
        target: path or URL, new or empty.
        split: the split.
        rows: its samples to hold out, int (n,).
        name: split of these.
        note: description of the choice of ``rows`` for the card's job record, as JSON.
        progress: callback for progress.

    Raises:
        UsageError: no sample is left in one of both, or ``target`` is not empty.
        DamagedError: the source is damaged.
        SeitError: a disk is full or a remote server does not respond.
    """
    held = np.zeros(len(store[split]), dtype=bool)
    held[rows] = True
    if held.all() or not held.any():
        raise UsageError(
            f"{int(held.sum()):,} of the {len(held):,} samples of {split!r} would be held out; "
            "some must be, and some must be left"
        )
    card = store.card
    with work_folder(target, resumes=card.container == CONTAINERS[0]) as work:
        contents = Contents(
            like=store,
            splits={
                split: chosen_blocks(store[split], ~held),
                name: chosen_blocks(store[split], held),
            },
            samples=len(held),
            classes=card.classes,
            skipped=[],
            source_bytes=share_of(card.source_bytes, len(held), card.samples),
            quality=card.quality,
            job=edited_job(card.job, hold_out={"source": card.seal, **(note or {})}),
            shard_samples=common_shard_samples([store], card.block_samples),
            parts=[(store[split], ~held), (store[split], held)],
        )
        write_contents(
            contents,
            work,
            target,
            codec=card.codec,
            container=card.container,
            request={"hold_out": card.seal, "names": [split, name]},
            progress=progress,
        )
    return describe(target, left_out=card.samples - len(held))
