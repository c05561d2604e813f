"""WebDataset shards: images or audio and their labels as neighbouring members of tar files."""

import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Self

from seit.errors import UsageError
from seit.modality import Modality
from seit.tokenize.sources.corpus import (
    SPLIT_NAMES,
    Corpus,
    Draft,
    assemble,
    examples,
    name_classes,
    shown,
)
from seit.tokenize.sources.media import EXTENSIONS, NOUNS, other, proposal
from seit.tokenize.sources.tarindex import Member, TarIndex
from seit.tokenize.sources.walk import as_text

MAX_SIDE_BYTES = 1 << 20
"""Largest .cls or .json member that is read, in bytes."""

# WebDataset's rule: the key goes up to the first dot of the base name, the rest is the field.
_MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
_SPLIT_WORD = re.compile(rf"(?<![a-z])({'|'.join(SPLIT_NAMES)})(?![a-z])")


class TarFile(NamedTuple):
    """Where a tar is, its path below the corpus, and the name of the folder it is in."""

    location: str
    relative: str
    folder: str


@dataclass
class _Found:
    """What the tars hold beside good samples, for the warnings."""

    modality: Modality
    without: list[str] = field(default_factory=list)
    others: int = 0
    doubles: list[str] = field(default_factory=list)
    bad_side: list[str] = field(default_factory=list)
    unended: list[str] = field(default_factory=list)

    def add(self, other: Self) -> None:
        """Take over what another tar held."""
        self.without += other.without
        self.others += other.others
        self.doubles += other.doubles
        self.bad_side += other.bad_side
        self.unended += other.unended

    def lines(self) -> list[str]:
        told = (
            (self.without, f"left out, as they have no {NOUNS[self.modality][0]} member"),
            (self.doubles, "left out, as their tars have members of that name already"),
            (self.bad_side, "ignored, as their labels or fields cannot be read"),
            (self.unended, "without an end-of-archive block, so perhaps cut short"),
        )
        return [f"{len(names)} {what}: {examples(names)}" for names, what in told if names]


def list_tars(
    source: str,
    paths: list[Path],
    base: Path,
    *,
    val_fraction: float,
    modality: Modality = "image",
) -> Corpus:
    """List the samples of tar files, in the order of the files and their members.

    A sample's key is the tar's path below ``base``, a slash, and the members' common name up to the
    first dot: "train-000.tar/000123". Its label is the text of its .cls member, or "label" or
    "class" of its .json member, whose other fields are metadata. Its split is the first word train,
    val, test (or a synonym) in the tar's name, else the folder the tar is in when that is such a
    word, else a hash of the key. Only headers and these small members are read.

    Raises:
        UsageError: a file is not an uncompressed tar or cannot be opened, or there are no images
            (no audio).
        DamagedError: a tar is truncated or corrupt.
    """
    files = [
        TarFile(
            str(path.absolute()),
            as_text(path.relative_to(base).as_posix()),
            path.absolute().parent.name,
        )
        for path in paths
    ]
    return list_tar_files(source, files, val_fraction=val_fraction, modality=modality)


def list_tar_files(
    source: str,
    files: Sequence[TarFile],
    *,
    val_fraction: float,
    modality: Modality,
    requests: int = 1,
) -> Corpus:
    """List the samples of tars, ``requests`` of them at a time; see :func:`list_tars`."""
    found = _Found(modality)
    drafts: list[Draft] = []
    with ThreadPoolExecutor(requests, thread_name_prefix="list") as pool:
        for of_one, remarks in pool.map(lambda file: _list_one(file, modality), files):
            drafts += of_one
            found.add(remarks)
    if not drafts:
        if found.others:
            raise UsageError(proposal(source, other(modality), found.others))
        why = f" ({'; '.join(found.lines())})" if found.lines() else ""
        extensions = ", ".join(EXTENSIONS[modality])
        raise UsageError(
            f"{source} holds no {NOUNS[modality][1]}{why}; expected members named "
            f"*.{{{extensions}}}"
        )
    names, classes = name_classes([draft.class_name for draft in drafts])
    drafts = [draft._replace(class_name=name) for draft, name in zip(drafts, names, strict=True)]
    return assemble(
        as_text(source),
        "webdataset",
        drafts,
        classes=classes,
        warnings=found.lines(),
        val_fraction=val_fraction,
    )


def _split_of(file: TarFile) -> str | None:
    word = _SPLIT_WORD.search(PurePosixPath(file.relative).stem.lower())
    if word:
        return SPLIT_NAMES[word[1]]
    return SPLIT_NAMES.get(file.folder.lower())


def _list_one(file: TarFile, modality: Modality) -> tuple[list[Draft], _Found]:
    found = _Found(modality)
    try:
        return _drafts_of(file, found), found
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise UsageError(f"{shown(file.location)} cannot be read: {reason}") from None


def _drafts_of(file: TarFile, found: _Found) -> list[Draft]:
    path, relative, _ = file
    split = _split_of(file)
    tar = TarIndex(path, shown(relative))
    try:
        samples: dict[str, dict[str, Member]] = {}
        for member in tar:
            match = _MEMBER.fullmatch(as_text(member.name))
            if not match:
                continue
            name, extension = match[1].removeprefix("./"), match[2].lower()
            sample = samples.setdefault(name, {})
            if extension in sample:
                found.doubles.append(f"{relative}/{name}.{extension}")
            else:
                sample[extension] = member
        if not tar.is_ended:
            found.unended.append(relative)
        drafts = []
        for name, sample in samples.items():
            key = f"{relative}/{name}"
            medium = _medium(sample, found.modality)
            if medium is None:
                found.without.append(key)
                found.others += _medium(sample, other(found.modality)) is not None
                continue
            label, metadata = _side(tar, key, sample, found)
            location = (path, medium.offset, medium.num_bytes)
            drafts.append(Draft(key, split, label, location, medium.num_bytes, metadata))
        return drafts
    finally:
        tar.close()


def _medium(sample: dict[str, Member], modality: Modality) -> Member | None:
    """Pick the image or audio: a field that is an extension of it, else the only one that ends so.

    When there are several, the first of the list of extensions wins.
    """
    extensions = EXTENSIONS[modality]
    for extension in extensions:
        if extension in sample:
            return sample[extension]
    ends = [member for name, member in sample.items() if name.split(".")[-1] in extensions]
    return ends[0] if len(ends) == 1 else None


def _side(
    tar: TarIndex, key: str, sample: dict[str, Member], found: _Found
) -> tuple[str | None, tuple[tuple[str, object], ...]]:
    """Return the label and the metadata of a sample."""
    label: str | None = None
    fields: dict[str, object] = {}
    for extension in ("json", "cls"):
        member = sample.get(extension)
        if member is None:
            continue
        if member.num_bytes > MAX_SIDE_BYTES:
            found.bad_side.append(f"{key}.{extension}")
            continue
        data = tar.read(member)
        try:
            if extension == "cls":
                label = data.decode("utf-8-sig").strip() or label
                continue
            fields = _json_object(data)
            given = fields.pop("label", None)
            given = fields.pop("class", None) if given is None else given
            if isinstance(given, dict | list):
                raise ValueError("a label is one value")
            label = None if given is None else str(given).strip() or None
        except (ValueError, RecursionError):
            found.bad_side.append(f"{key}.{extension}")
    return label, tuple(fields.items())


def _json_object(data: bytes) -> dict[str, object]:
    """Parse a JSON object, NaN as null; raise ValueError for other values and half surrogates."""
    value = json.loads(data, parse_constant=lambda _: None)
    if not isinstance(value, dict):
        raise ValueError(f"found {type(value).__name__}; expected an object")
    json.dumps(value, ensure_ascii=False).encode()
    return value


def find_tars(source: Path) -> list[Path]:
    """Return the visible *.tar files in a folder and in its split folders, by name."""
    folders = [source]
    with os.scandir(source) as scan:
        folders += [
            source / item.name
            for item in scan
            if item.name.lower() in SPLIT_NAMES and item.is_dir()
        ]
    found = [
        path
        for folder in folders
        for path in folder.glob("*.tar")
        if not path.name.startswith(".") and path.is_file()
    ]
    return sorted(found)
