"""Hash split: train or val for sources without splits."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from seit.ingest.sources.corpus import SPLIT_NAMES, SPLIT_WORD, Head, SourceFile, examples

_SPLITS = ("train", "val")


@dataclass(frozen=True)
class HashSplit:
    """Rule that splits instances whose source names no split.

    An instance is in val if the hash of its key, as a fraction, is below ``val_fraction``. A class
    without a sample to learn from gets its val sample with the highest hash. A class of two or more
    without a sample to evaluate gives its train sample with the lowest.

    Attributes:
        val_fraction: share of the instances for val, 0 ≤ x < 1.
        kept: key → split of instances that were split earlier; none of them moves.
    """

    val_fraction: float
    kept: Mapping[str, str] = field(default_factory=dict)

    def divide(self, drafts: Sequence[Head]) -> tuple[list[str], list[str]]:
        """Return the split of each draft, and warnings; a draft has key, split and class."""
        splits = [self._first_choice(draft) if draft.split is None else draft.split
                  for draft in drafts]  # fmt: skip
        if self.val_fraction == 0 or all(draft.split is not None for draft in drafts):
            return splits, []
        self._mend_classes(drafts, splits)
        return splits, self._remarks(drafts, splits)

    def _first_choice(self, draft: Head) -> str:
        kept = self.kept.get(draft.key)
        if kept in _SPLITS:
            return str(kept)
        return "val" if hash_fraction(draft.key) < self.val_fraction else "train"

    def _mend_classes(self, drafts: Sequence[Head], splits: list[str]) -> None:
        """Move a sample of every class that has none to learn from, or none to evaluate."""
        sides = _count_sides(drafts, splits)
        lacking = {
            name: "val" if train else "train"
            for name, (train, val) in sides.items()
            if (train == 0 and val > 0) or (val == 0 and train > 1)
        }
        movable: dict[str, list[tuple[float, str, int]]] = {}
        for row, draft in enumerate(drafts):
            name = draft.class_name
            if (
                name in lacking
                and draft.split is None
                and draft.key not in self.kept
                and splits[row] != lacking[name]
            ):
                movable.setdefault(name, []).append((hash_fraction(draft.key), draft.key, row))
        for name, ranked in movable.items():
            side = lacking[name]
            splits[min(ranked)[2] if side == "val" else max(ranked)[2]] = side

    def _remarks(self, drafts: Sequence[Head], splits: list[str]) -> list[str]:
        found = set(splits)
        for side in _SPLITS:
            if side not in found:
                return [
                    f"the hash split at val_fraction {self.val_fraction:g} put none of "
                    f"{len(drafts)} instances into {side}; name the splits in the source, or "
                    "choose another fraction"
                ]
        sides = _count_sides(drafts, splits)
        single = sorted(name for name, (train, val) in sides.items() if train == 1 and val == 0)
        stuck = sorted(name for name, (train, val) in sides.items() if train > 1 and val == 0)
        lines = []
        if single:
            lines.append(
                f"{len(single)} of {len(sides)} classes have a single sample, which is in train, "
                f"so they are not evaluated: {examples(single)}"
            )
        if stuck:
            lines.append(
                f"{len(stuck)} of {len(sides)} classes have no sample in val, as theirs stay in "
                f"the split that they were in: {examples(stuck)}"
            )
        return lines


def split_of(file: SourceFile) -> str | None:
    """Return the split in the name of a tar or Parquet file, else in its folder's; or None."""
    word = SPLIT_WORD.search(PurePosixPath(file.relative).stem.lower())
    return SPLIT_NAMES[word[1]] if word else SPLIT_NAMES.get(file.folder.lower())


def hash_fraction(key: str) -> float:
    """Map a key to 0 ≤ x < 1 by its blake2b hash, independent of machine and other files."""
    digest = hashlib.blake2b(key.encode(), digest_size=8, person=b"seit-split").digest()
    return int.from_bytes(digest) / 2**64


def _count_sides(drafts: Sequence[Head], splits: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return class → number of its samples in train and in val."""
    counts = Counter(
        (draft.class_name, split)
        for draft, split in zip(drafts, splits, strict=True)
        if draft.class_name is not None
    )
    names = {name for name, _ in counts if name is not None}
    return {name: (counts[name, "train"], counts[name, "val"]) for name in names}
