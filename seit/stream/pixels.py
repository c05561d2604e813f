"""Load the instances of a split as decoded images, for baselines.

The pixel source reads SRC, matches its instances to the split's by key, and yields the same batches
in the same order, with pixels instead of tokens.

Legend: B batch, S image side.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.errors import SeitError, UsageError
from seit.ingest import Instance, PixelReader, View, list_corpus, recorded, split_view
from seit.printable import printable
from seit.shards import Split, is_url
from seit.stream.batches import IndexedLoader, Rank
from seit.stream.order import GlobalOrder, Order, StoredOrder, SubsetOrder

RESIDENT_BYTES = 2 << 30
"""Splits of up to 2 GiB of decoded pixels are decoded once; larger ones at each step."""


class PixelLoader(IndexedLoader):
    """Batches of pixels uint8 (B, 3, S, S), as the tokenizer saw the same instances.

    Those of a store of several views are the same crops of the pictures.

    ``resident`` decodes the split once and keeps it; None keeps up to 2 GiB. ``subset`` int (n,)
    selects rows, None for all; with several ranks each holds all of them. ``root`` is the folder
    that the relative paths of a table start at, None for its own.

    Raises:
        UsageError: SRC lacks instances of the split, or their files, or the store's card does not
            say how its views were cropped.
    """

    def __init__(
        self,
        split: Split,
        source: str | Path,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        device: str | torch.device,
        resident: bool | None = None,
        workers: int | None = None,
        subset: npt.NDArray[np.integer] | None = None,
        rank: Rank | None = None,
        root: str | Path | None = None,
    ) -> None:
        order: Order | None = None
        if subset is not None:
            order = GlobalOrder(len(subset), seed=seed) if shuffle else StoredOrder(len(subset))
            order = SubsetOrder(order, subset, len(split))
        super().__init__(
            labels=split.labels,
            find_keys=self._keys_of,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            device=device,
            order=order,
            rank=rank,
        )
        self.classes = split.classes
        self.label_sets = split.label_sets
        self._instances = _match(split, source, None if root is None else Path(root))
        self._size = split.store.card.tokenizer.require_image_size()
        self.sample_shape = (3, self._size, self._size)
        max_pixels = int(recorded(split.store.card, "max_pixels"))
        self._reader = PixelReader(size=self._size, max_pixels=max_pixels, workers=workers)
        self._pixels: Tensor | None = None
        if resident is None:
            resident = len(self._instances) * 3 * self._size**2 <= RESIDENT_BYTES
        if resident:
            self._pixels = self._decode(self._instances)

    def read(self, indices: npt.NDArray[np.int64]) -> Tensor:
        """Load pixels uint8 (B, 3, S, S) of the rows ``indices``."""
        if self._pixels is not None:
            return self._pixels[torch.from_numpy(indices)].to(self.device, non_blocking=True)
        return self._decode([self._instances[index] for index in indices.tolist()]).to(self.device)

    def _keys_of(self, rows: npt.NDArray[np.int64]) -> list[str]:
        return [self._instances[row].key for row in rows.tolist()]

    def _decode(self, instances: list[Instance]) -> Tensor:
        images = torch.empty(len(instances), 3, self._size, self._size, dtype=torch.uint8)
        for row, entry in enumerate(self._reader.read(instances)):
            if entry.pixels is None:
                raise SeitError(f"{entry.instance.key} can no longer be read: {entry.reason}")
            images[row] = torch.from_numpy(entry.pixels).permute(2, 0, 1)
        return images


def _match(split: Split, source: str | Path, root: Path | None) -> list[Instance]:
    """Return the instance of each sample.

    Raises:
        UsageError: SRC lacks some or their files, or it is unknown how views were cropped.
    """
    card, keys = split.store.card, split.keys
    val_fraction = recorded(card, "val_fraction")
    corpus = list_corpus(source, val_fraction=val_fraction, root=root)
    by_key = {entry.key: entry for entry in corpus.instances}
    missing: list[str] = []
    views: list[str] = []
    for key in keys:
        if key not in by_key:
            own, number = split_view(key)
            (views if number and own in by_key else missing).append(key)
    if missing:
        raise UsageError(
            f"{source} lacks {len(missing)} of the {len(keys)} instances of split "
            f"{split.name!r} (the first: {missing[0]}); pass the SRC that the store was made from"
        )
    if views and not {"views", "seed"} <= card.job.keys():
        raise UsageError(
            f"{len(views)} of the {len(keys)} samples of split {split.name!r} are views (the "
            f"first: {views[0]}), and the card of {split.store.folder}, as of merged stores, does "
            "not record how they were cropped; train on one of the stores that were merged, or "
            "leave views out by `seit filter --key-pattern`, such as '*.jpg'"
        )
    seed = int(recorded(card, "seed"))
    for key in views:
        own, number = split_view(key)
        by_key[key] = View.of(by_key[own], number, seed=seed)
    found = [by_key[key] for key in keys]
    lost = [entry.location for entry in found if _is_lost(entry)]
    if lost:
        raise UsageError(
            f"{len(lost)} of the {len(found)} files of split {split.name!r} that {source} lists "
            f"are not there (the first: {printable(lost[0])}); if the paths of a table start at "
            "another folder than its own, name that (--data.root, --distill.root, --memory.root, "
            "or --root of seit eval)"
        )
    return found


def _is_lost(entry: Instance) -> bool:
    """Return whether an instance is a local file that the listing did not find."""
    return isinstance(entry.location, str) and entry.num_bytes < 0 and not is_url(entry.location)
