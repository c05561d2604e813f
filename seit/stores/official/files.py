"""Files of a split: their names, and finding them in a folder."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from seit.errors import UsageError
from seit.files import explained_writes
from seit.store_folders import refuse_inside_store
from seit.stores.official.codebook import CODEBOOK_SUFFIXES
from seit.stores.official.reader import explained_reads

DATA_SUFFIX = "-token.data.bin.gz"
INDEX_SUFFIX = "-token.index.npy.gz"
LABEL_SUFFIX = "-label.txt"
CODEBOOK_FILE = "codebook.ckpt"
_SPLIT_NAME = re.compile(r"\w[\w.-]*")
_LONE_LABELS = re.compile(r"labels?\.txt", re.IGNORECASE)


@dataclass(frozen=True)
class OfficialSplit:
    """Files of one split; without ``labels`` every sample is unlabeled."""

    name: str
    data: Path
    index: Path
    labels: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Existing files of the split."""
        return (self.data, self.index, *([self.labels] if self.labels else []))


def find_official(folder: Path) -> tuple[list[OfficialSplit], Path]:
    """Find the splits in ``folder``, by name, and the codebook.

    A label file is a ``.txt`` with "label" in its name; it belongs to the split with the longest
    name that occurs in it as a word (``train_labels.txt``). ``labels.txt`` belongs to the split of
    a folder with only one. The codebook has "codebook" in its name.

    Raises:
        UsageError: a file is missing or ambiguous.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; name the one that holds *{DATA_SUFFIX}")
    with explained_reads(folder):
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
    names = [name for name in names if not name.startswith(".")]
    splits = sorted(name.removesuffix(DATA_SUFFIX) for name in names if name.endswith(DATA_SUFFIX))
    if not splits:
        raise UsageError(f"{folder} holds no file named like train{DATA_SUFFIX}")
    for split in splits:
        if split + INDEX_SUFFIX not in names:
            raise UsageError(f"{folder} lacks {split}{INDEX_SUFFIX}, the index of {split!r}")
    labels = [name for name in names if "label" in name.lower() and name.lower().endswith(".txt")]
    codebooks = [
        name
        for name in names
        if "codebook" in name.lower() and name.lower().endswith(CODEBOOK_SUFFIXES)
    ]
    found = [
        OfficialSplit(
            name=split,
            data=folder / (split + DATA_SUFFIX),
            index=folder / (split + INDEX_SUFFIX),
            labels=folder
            / _only(
                _labels_of(split, splits, labels),
                f"label file of split {split!r}",
                like=split + LABEL_SUFFIX,
                folder=folder,
                seen=labels,
            ),
        )
        for split in splits
    ]
    codebook = _only(codebooks, "codebook", like=CODEBOOK_FILE, folder=folder, seen=codebooks)
    return found, folder / codebook


def _labels_of(split: str, splits: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Return the label files that belong only to ``split``."""
    named = [
        label
        for label in labels
        if max((other for other in splits if _has_word(label, other)), key=len, default="") == split
    ]
    return named or [label for label in labels if len(splits) == 1 and _LONE_LABELS.match(label)]


def _has_word(name: str, word: str) -> bool:
    return bool(re.search(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", name, re.IGNORECASE))


def _only(
    candidates: Sequence[str], what: str, *, like: str, folder: Path, seen: Sequence[str]
) -> str:
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise UsageError(
            f"{folder} holds more than one {what}: {', '.join(candidates)}; leave one, or name "
            "the files"
        )
    others = f" (there is {', '.join(seen)})" if seen else ""
    raise UsageError(f"{folder} holds no {what}{others}; name it like {like}, or name the files")


def check_split_name(name: str) -> None:
    """Refuse a name that cannot be part of file names.

    Raises:
        UsageError: it holds characters other than letters, digits, ``_``, ``-`` and ``.``.
    """
    if not _SPLIT_NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a split's files; use letters, digits, '_', '-' and '.'"
        )


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Create a folder if missing; remove it after an error, if it is empty."""
    refuse_inside_store(folder)
    is_new = not folder.exists()
    with explained_writes(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise
