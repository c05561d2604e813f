"""WebDataset shards: images or audio and their labels as neighboring members of tar files."""

import json
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self

from seit.errors import UsageError
from seit.ingest.sources.assemble import assemble
from seit.ingest.sources.corpus import (
    Corpus,
    Draft,
    SourceFile,
    examples,
    listing_pulse,
    shown,
)
from seit.ingest.sources.instance_table import DraftTable
from seit.ingest.sources.label_sets import (
    LABELS_COLUMN,
    has_label_set,
    read_label_set,
    settle_label_sets,
    with_labels,
)
from seit.ingest.sources.labels import (
    LABEL_COLUMNS,
    label_text,
    name_classes,
    rewritten_remarks,
)
from seit.ingest.sources.media import EXTENSIONS, NOUNS, other, proposal
from seit.ingest.sources.splits import HashSplit, split_of
from seit.ingest.sources.tables import plain
from seit.ingest.sources.tar_index import Member, TarIndex
from seit.ingest.sources.walk import as_text, is_system
from seit.modality import Modality
from seit.shards import is_url

MAX_SIDE_BYTES = 1 << 20
"""Size limit of .cls and .json members, in bytes."""

MAX_HELD_BYTES = 4 << 20
"""Size limit of members that a stream holds; larger ones are read by their places."""
_LINE_FEED = "\ud800"
"""Placeholder for line feeds in names, which WebDataset's pattern does not match; never in text."""
_REQUESTS = 16
_MAX_LINKS = 40
"""Limit on links followed in a row, as in Linux."""

Sample = dict[str, Member]
"""Field in lower case, such as "jpg", "cls" or "left.png" → the member."""


@dataclass
class TarRemarks:
    """Contents of tars other than good samples, for the warnings."""

    modality: Modality
    without: list[str] = field(default_factory=list)
    others: int = 0
    several: list[str] = field(default_factory=list)
    second: list[str] = field(default_factory=list)
    doubles: list[str] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)
    bad_side: list[str] = field(default_factory=list)
    bad_labels: list[str] = field(default_factory=list)
    unended: list[str] = field(default_factory=list)
    unplaced: list[str] = field(default_factory=list)
    apart: list[str] = field(default_factory=list)
    fields: Counter[str] = field(default_factory=Counter)

    def add(self, other: Self) -> None:
        """Add the findings in another tar."""
        for name, value in vars(other).items():
            if name != "modality":
                setattr(self, name, getattr(self, name) + value)

    def groups(self) -> tuple[tuple[list[str], str], ...]:
        """Return the names that a sentence is about, and the sentence."""
        noun, nouns = NOUNS[self.modality]
        return (
            (self.without, f"left out, as they have no {noun} member"),
            (
                self.several,
                f"left out, as several {nouns} have that name up to the first dot and share its "
                "other members; rename them",
            ),
            (self.second, f"left out, as another {noun} of the same name was taken"),
            (self.doubles, "left out, as their tars have members of that name already"),
            (self.dangling, "left out, as they are links to nothing in their tars"),
            (self.bad_side, "ignored, as their labels or fields cannot be read"),
            (self.bad_labels, "without their labels, as these are lists of lists or too many"),
            (self.unended, "without an end-of-archive block, so perhaps cut short"),
            (
                self.apart,
                "left out, as members of that name stand elsewhere in their tars; write the "
                "members of a sample next to each other",
            ),
        )

    def lines(self) -> list[str]:
        """Return one line about each kind of finding."""
        groups = self.groups()
        lines = [f"{len(names)} {what}: {examples(names)}" for names, what in groups if names]
        if self.unplaced:
            lines.append(
                f"{len(self.unplaced)} tars name no split while others do, so a hash splits "
                f"their samples: {examples(self.unplaced)}"
            )
        return lines

    def label_places(self) -> str:
        """Return a sentence on where labels are looked for, and what was found instead."""
        sought = ", ".join((*LABEL_COLUMNS, LABELS_COLUMN))
        text = f"labels are looked for in .cls members and in the fields {sought} of .json members"
        if self.fields:
            most = ", ".join(f"{count:,} .{name}" for name, count in self.fields.most_common(6))
            text += f"; next to the {NOUNS[self.modality][1]} there are {most}"
        return f"{text}; names of tars and folders in them are not labels"


def list_tars(
    source: str,
    files: Sequence[SourceFile],
    *,
    hash_split: HashSplit,
    modality: Modality,
    known_classes: Sequence[str] = (),
) -> Corpus:
    """List the samples of tar files, in the order of the files and their members.

    A sample's key is the tar's path below the corpus, a slash, and the members' common name up to
    the first dot: "train-000.tar/000123"; up to the last dot if several images would share that
    name. Its label is the text of its .cls member, or "label", "class" or "category" of its .json
    member, whose other fields are metadata; the member is found as the image is: x.05.cls of
    x.05.jpg. A list there, or in "labels", is several labels. Its split is the first word train,
    val, test (or a synonym) in the tar's name, else the tar's folder if that is such a word, else
    from ``hash_split``. A link counts as its target member. Only headers and these small members
    are read.

    Raises:
        UsageError: a file is not an uncompressed tar or cannot be opened, or has no images (audio).
        DamagedError: a tar is truncated or corrupt.
    """
    found = TarRemarks(modality)
    drafts = DraftTable()
    requests = _REQUESTS if any(is_url(file.location) for file in files) else 1
    with ThreadPoolExecutor(requests, thread_name_prefix="list") as pool:
        listed = pool.map(lambda file: _list_one(file, modality), files)
        for of_one, remarks in listing_pulse(source).each(listed, per=lambda found: len(found[0])):
            drafts.extend(of_one)
            found.add(remarks)
    if all(split_of(file) is None for file in files):
        found.unplaced.clear()
    if not drafts:
        if found.others:
            raise UsageError(proposal(source, other(modality), found.others))
        why = f" ({'; '.join(found.lines())})" if found.lines() else ""
        extensions = ", ".join(EXTENSIONS[modality])
        raise UsageError(
            f"{source} holds no {NOUNS[modality][1]}{why}; expected members named "
            f"*.{{{extensions}}}"
        )
    named: Sequence[Draft] = drafts
    given = drafts.given_classes
    if any(has_label_set(drafts[row]) for row in drafts.rows_with(LABELS_COLUMN)):
        named, classes = settle_label_sets(drafts, known=known_classes)
    else:
        names, classes = name_classes(given, known=known_classes)
        drafts.rename_classes(names)
    return assemble(
        as_text(source),
        "webdataset",
        named,
        classes=classes,
        warnings=found.lines() + rewritten_remarks(given, known=known_classes),
        hash_split=hash_split,
        label_places=found.label_places(),
    )


def _list_one(file: SourceFile, modality: Modality) -> tuple[list[Draft], TarRemarks]:
    found = TarRemarks(modality)
    try:
        return _drafts_of(file, found), found
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise UsageError(f"{shown(file.location)} cannot be read: {reason}") from None


def _drafts_of(file: SourceFile, found: TarRemarks) -> list[Draft]:
    path, relative, _ = file
    split = split_of(file)
    if split is None:
        found.unplaced.append(relative)
    tar = TarIndex(path, shown(relative))
    try:
        samples = _samples(tar, relative, found)
        if not tar.is_ended:
            found.unended.append(relative)
        drafts = (
            _draft_of(tar, f"{relative}/{name}", split, sample, found) for name, sample in samples
        )
        return [draft for draft in drafts if draft is not None]
    finally:
        tar.close()


def _draft_of(
    tar: TarIndex, key: str, split: str | None, sample: Sample, found: TarRemarks
) -> Draft | None:
    """Return the draft of a sample, None if it has no image (no audio)."""
    chosen = _medium(sample, found.modality)
    if chosen is None:
        _remark_none(key, sample, found)
        return None
    medium = sample[chosen]
    others = _media(sample, found.modality) - {chosen}
    found.second += [f"{key}.{extension}" for extension in sorted(others)]
    found.fields.update(sample.keys() - others - {chosen})
    label, metadata = _side(tar, key, chosen, sample, found)
    location = (tar.path, medium.offset, medium.num_bytes)
    return Draft(key, split, label, location, medium.num_bytes, metadata)


def stream_tar(file: SourceFile, found: TarRemarks) -> Iterator[Draft]:
    """Yield the samples of a tar in one pass over its bytes, with small members in memory.

    Keys, labels, splits and metadata are those of :func:`list_tars`, if the members of each sample
    are neighbors, as WebDataset requires.

    Raises:
        UsageError: the file is not an uncompressed tar, or has sparse members.
        DamagedError: it is truncated or corrupt; the samples before that were yielded.
        OSError: it cannot be opened.
    """
    from webdataset.tariterators import group_by_keys

    _, relative, _ = file
    split = split_of(file)
    tar = TarIndex(file.location, shown(relative), streams=True)
    places: dict[str, Member] = {}
    seen: set[int] = set()
    try:
        for run in group_by_keys(_runs(tar, places), keys=lambda parts: parts):
            name = run.pop("__key__").removeprefix("./")
            del run["__url__"]
            if (digest := hash(name)) in seen:
                found.apart.append(f"{relative}/{name}")
                continue
            seen.add(digest)
            if any(member.target is not None for member in run.values()):
                _follow(run, places, f"{relative}/{name}", found)
            for stem, part in _divide(name, run, found.modality) if run else ():
                draft = _draft_of(tar, f"{relative}/{stem}", split, part, found)
                if draft is None:
                    continue
                if draft.num_bytes <= MAX_HELD_BYTES:
                    offset = part[str(_medium(part, found.modality))].offset
                    held = tar.read(Member("", offset, draft.num_bytes))
                    draft = draft._replace(location=held)
                yield draft
        if not tar.is_ended:
            found.unended.append(relative)
    finally:
        tar.close()


def _samples(tar: TarIndex, relative: str, found: TarRemarks) -> Iterable[tuple[str, Sample]]:
    """Group the members of a tar by name, with links resolved."""
    # Imported late, since webdataset loads torch.
    from webdataset.tariterators import group_by_keys

    groups: dict[str, Sample] = {}
    places: dict[str, Member] = {}
    for run in group_by_keys(_runs(tar, places), keys=lambda parts: parts):
        name = run.pop("__key__").removeprefix("./")
        del run["__url__"]
        sample = groups.setdefault(name, {})
        # Members of a sample need not be neighbors here, unlike in WebDataset.
        for extension, member in run.items():
            if sample.setdefault(extension, member) is not member:
                found.doubles.append(f"{relative}/{name}.{extension}")
    has_links = any(member.target is not None for member in places.values())
    if has_links:
        for name, sample in groups.items():
            _follow(sample, places, f"{relative}/{name}", found)
    return [
        (stem, part)
        for name, sample in groups.items()
        if sample
        for stem, part in _divide(name, sample, found.modality)
    ]


def _runs(tar: TarIndex, places: dict[str, Member]) -> Iterator[dict[str, object]]:
    """Yield the members with split names for WebDataset's stages, and note the place of each.

    A repeated field starts another run of the same key: WebDataset's own error for it lists all
    fields each time, which would take quadratic time on a hostile tar.
    """
    last: str | None = None
    fields: set[str] = set()
    for member in tar:
        places[posixpath.normpath(member.name)] = member
        parts = _key_and_field(as_text(member.name))
        if parts is None:
            continue
        key, extension = parts
        if key != last:
            last, fields = key, set()
        if extension in fields:
            fields = set()
            yield {}
        fields.add(extension)
        yield {"fname": parts, "data": member, "__url__": ""}


def _key_and_field(name: str) -> tuple[str, str] | None:
    """Split a member's name by WebDataset's rule: the key ends at the base name's first dot.

    Return None for names that are hidden, system files, or have a reserved field (``__key__``).
    """
    from webdataset.tariterators import base_plus_ext

    *folders, base = name.split("/")
    if base.startswith(".") or any(map(is_system, folders)):
        return None
    key, field = base_plus_ext(name.replace("\n", _LINE_FEED))
    if key is None or field.startswith("__"):
        return None
    return key.replace(_LINE_FEED, "\n"), field.replace(_LINE_FEED, "\n").lower()


def _follow(sample: Sample, places: Mapping[str, Member], key: str, found: TarRemarks) -> None:
    """Replace links by their target members."""
    for extension, member in list(sample.items()):
        place: Member | None = member
        for _ in range(_MAX_LINKS):
            if place is None or place.target is None:
                break
            place = places.get(place.target)
        if place is None or place.target is not None:
            found.dangling.append(f"{key}.{extension}")
            del sample[extension]
        else:
            sample[extension] = place


def _divide(name: str, sample: Sample, modality: Modality) -> list[tuple[str, Sample]]:
    """Split a sample whose name has dots: x.1.jpg, x.1.cls and x.2.jpg are x.1 and x.2.

    It stays whole if it has one image (one clip), or a member that would belong to all parts.
    """
    stems = {extension.rpartition(".")[0] for extension in _media(sample, modality)}
    parts: dict[str, Sample] = {}
    for extension, member in sample.items():
        stem, _, last = extension.rpartition(".")
        parts.setdefault(stem, {})[last] = member
    if len(stems) < 2 or not stems.issuperset(parts) or "" in stems:
        return [(name, sample)]
    return [(f"{name}.{stem}", part) for stem, part in parts.items()]


def _media(sample: Sample, modality: Modality) -> set[str]:
    """Return the fields that are images (audio) by their names."""
    extensions = EXTENSIONS[modality]
    return {name for name in sample if name.rpartition(".")[2] in extensions}


def _medium(sample: Sample, modality: Modality) -> str | None:
    """Choose the image or audio: a field that is an extension of it, else the only one ending so.

    If there are several, the first in the list of extensions wins.
    """
    for extension in EXTENSIONS[modality]:
        if extension in sample:
            return extension
    ends = _media(sample, modality)
    return ends.pop() if len(ends) == 1 else None


def _remark_none(key: str, sample: Sample, found: TarRemarks) -> None:
    """Record why a sample has no image (no audio)."""
    if _media(sample, found.modality):
        found.several.append(key)
        return
    found.without.append(key)
    found.others += _medium(sample, other(found.modality)) is not None


def _side_field(sample: Sample, chosen: str, extension: str) -> str | None:
    """Return the field that belongs to the chosen one: x.05.cls of x.05.jpg, else x.cls."""
    stem = chosen.rpartition(".")[0]
    for name in (f"{stem}.{extension}" if stem else extension, extension):
        if name in sample:
            return name
    ends = [name for name in sample if name.endswith(f".{extension}")]
    return ends[0] if len(ends) == 1 else None


def _side(
    tar: TarIndex, key: str, chosen: str, sample: Sample, found: TarRemarks
) -> tuple[str | None, tuple[tuple[str, object], ...]]:
    """Return the label and the metadata of a sample."""
    label: object = None
    fields: dict[str, object] = {}
    has_class = _side_field(sample, chosen, "cls") is not None
    for extension in ("json", "cls"):
        name = _side_field(sample, chosen, extension)
        if name is None:
            continue
        member = sample[name]
        if member.num_bytes > MAX_SIDE_BYTES:
            found.bad_side.append(f"{key}.{name}")
            continue
        data = tar.read(member)
        try:
            if extension == "cls":
                label = _class_text(data.decode("utf-8-sig").strip()) or label
                continue
            fields = _json_object(data)
            label = _pop_label(fields, has_class=has_class)
            if isinstance(label, dict):
                label = None
                found.bad_side.append(f"{key}.{name}")
        except (ValueError, RecursionError):
            found.bad_side.append(f"{key}.{name}")
    if not isinstance(label, list):
        return (None if label is None else label_text(label) or None), tuple(fields.items())
    try:
        return None, with_labels(fields.items(), read_label_set(label, key))
    except UsageError:
        found.bad_labels.append(key)
        return None, tuple(fields.items())


def _class_text(text: str) -> object:
    """Return the label of a .cls member, or several if it is a JSON list."""
    if text.startswith("[") and text.endswith("]"):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, list):
            return found
    return text


def _pop_label(fields: dict[str, object], *, has_class: bool) -> object:
    """Pop the label from the fields, or a list of several.

    A category and labels stay metadata if a .cls has the label.
    """
    given = fields.pop("label", None)
    given = fields.pop("class", None) if given is None else given
    if given is None and not has_class:
        given = fields.pop("category", None)
    if given is None and not has_class and isinstance(fields.get(LABELS_COLUMN), list):
        given = fields.pop(LABELS_COLUMN)
    return given


def _json_object(data: bytes) -> dict[str, object]:
    """Parse a JSON object, NaN and infinity as null.

    Raises:
        ValueError: it is no object, or has lone surrogates.
    """
    value = json.loads(data, parse_constant=lambda _: None)
    if not isinstance(value, dict):
        raise ValueError(f"found {type(value).__name__}; expected an object")
    json.dumps(value, ensure_ascii=False).encode()
    return {name: plain(part) for name, part in value.items()}
