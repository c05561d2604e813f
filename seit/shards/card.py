"""`store.json`, the card of a store: its contents, format, and the checksum of every file.

The card is canonical JSON (two-space indent, keys in the order below) and ends with its seal: the
sha256 of its own text without that last entry, so that readers detect any changed byte before they
trust the rest.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta

from seit.documents import reason_of
from seit.errors import DamagedError, UsageError
from seit.files import write_atomically
from seit.shards.card_text import is_sealed, seal_entry, seal_of, text_pieces
from seit.shards.codecs import PackedCodec, TokenLayout
from seit.shards.context import MAX_CODES as MAX_CONTEXT_CODES, ContextCodec
from seit.shards.folders import Folder, LocalFolder, Location, open_folder
from seit.shards.frames import MAX_COUNT
from seit.shards.names import is_inner_path, is_split_name
from seit.store_folders import CARD_NAME as CARD_NAME, FORMAT_NAME, JOB_FOLDER

EDITS_ENTRY = "edits"
"""Field of a card's ``job`` that lists later edits of the store, in order."""
FORMAT_VERSION = 1
_RUN_NAME = "run.json"  # of a run, which is no store
CODECS = (PackedCodec.name, ContextCodec.name)
CONTAINERS = ("wds", "zarr")
MAX_CARD_BYTES = 1 << 28
MAX_SHARD_BLOCKS = 1 << 16
"""Most blocks in a shard; bounds what a reader keeps in memory for one."""
_LEAST_BLOCK_BYTES = 3 * 1024
"""A block of a tar is at least three members, each a 512-byte header and a 512-byte record."""
_LEAST_STREAM_BYTES = 6
"""A context-coded sample is at least two words and their count."""
MAX_GRID_SIDE = 1 << 14
MAX_CODES = 1 << 31
GridSide = Annotated[int, Meta(ge=1, le=MAX_GRID_SIDE)]
NumCodes = Annotated[int, Meta(ge=2, le=MAX_CODES)]
_SHOWN_LENGTH = 80
_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """File of the store: path relative to it, size in bytes, sha256 in hexadecimal."""

    file: str
    bytes: Annotated[int, Meta(ge=0, le=1 << 50)]
    sha256: str


@dataclass(frozen=True, slots=True)
class ShardRecord(FileRecord):
    """Shard and the number of samples in it."""

    samples: Annotated[int, Meta(ge=0, le=1 << 40)]


@dataclass(frozen=True)
class TokenizerInfo:
    """Facts about the tokenizer that made the tokens."""

    name: str
    fingerprint: str
    modality: str
    preprocessing: Mapping[str, Any]
    grid: tuple[GridSide, GridSide]
    codebook_size: NumCodes
    codebook_dim: Annotated[int, Meta(ge=1, le=1 << 16)]
    flip_equivariant: bool

    @property
    def image_size(self) -> int | None:
        """Side of the square images that the tokenizer takes, in pixels; None if unknown."""
        size = self.preprocessing.get("size")
        return size if isinstance(size, int) else None

    def require_image_size(self) -> int:
        """Return :attr:`image_size`.

        Raises:
            UsageError: the tokens are not of images, or the card does not give the image size.
        """
        if self.modality != "image" or self.image_size is None:
            raise UsageError(
                f"tokens of {self.name} are not of images of a known size, which pixels need; "
                "tokenize images with a tokenizer of this package"
            )
        return self.image_size


@dataclass(frozen=True)
class Card:
    """Parsed card.

    Attributes:
        tokenizer: facts about the tokenizer.
        codec: name of the codec.
        container: format of the shards.
        block_samples: samples per block; only the last block of a shard may hold fewer.
        classes: class names; a label indexes them.
        splits: the shards of each split, in order.
        files: every other file of the store.
        skipped: number of inputs that could not be read.
        source_bytes: bytes of the original files of all samples.
        quality: the tokenizer's PSNR and codebook usage on images of this corpus.
        job: all settings that determine the bytes of the store.
    """

    tokenizer: TokenizerInfo
    codec: str
    container: str
    block_samples: Annotated[int, Meta(ge=1, le=MAX_COUNT)]
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[ShardRecord, ...]]
    files: tuple[FileRecord, ...]
    skipped: Annotated[int, Meta(ge=0, le=1 << 50)]
    source_bytes: Annotated[int, Meta(ge=0, le=1 << 62)]
    quality: Mapping[str, Any]
    job: Mapping[str, Any]
    version: int = field(default=FORMAT_VERSION)

    @property
    def seal(self) -> str:
        """The sha256 that ends the card; it identifies this exact store."""
        return self._sealed[0]

    @property
    def num_bytes(self) -> int:
        """Size of the card itself, in bytes."""
        return self._sealed[1]

    @cached_property
    def _sealed(self) -> tuple[str, int]:
        return seal_of(self._pieces())

    @property
    def layout(self) -> TokenLayout:
        """Layout of the tokens of a sample."""
        return TokenLayout(grid=self.tokenizer.grid, num_codes=self.tokenizer.codebook_size)

    @property
    def is_merged(self) -> bool:
        """True if the store, or one that it was made from, was merged from several."""
        edits = self.job.get(EDITS_ENTRY)
        return isinstance(edits, list) and any(
            isinstance(edit, dict) and "merge" in edit for edit in edits
        )

    @cached_property
    def listed(self) -> Mapping[str, FileRecord]:
        """Every file except the card and the shards, by path."""
        return {record.file: record for record in self.files}

    @property
    def records(self) -> tuple[FileRecord, ...]:
        """Every file that the card lists: first the shards, then the others."""
        return tuple(chain(*self.splits.values(), self.files))

    @property
    def samples(self) -> int:
        """Number of samples in all splits."""
        return sum(self.samples_of(split) for split in self.splits)

    @property
    def payload_bytes(self) -> int:
        """Size of all shards, in bytes."""
        return sum(shard.bytes for shards in self.splits.values() for shard in shards)

    def samples_of(self, split: str) -> int:
        """Return the number of samples in a split."""
        return sum(shard.samples for shard in self.splits[split])

    def to_text(self) -> str:
        """Return the canonical text of the card."""
        return "".join(self._pieces()) + seal_entry(self.seal)

    def _pieces(self) -> Iterator[str]:
        tokenizer = self.tokenizer
        entries: dict[str, Any] = {
            "format": FORMAT_NAME,
            "version": self.version,
            "tokenizer": {**vars(tokenizer), "preprocessing": dict(tokenizer.preprocessing)},
            "codec": {"name": self.codec, "bits": self.layout.bits},
            "container": self.container,
            "block_samples": self.block_samples,
            "classes": self.classes,
            "splits": None,
            "files": None,
            "skipped": self.skipped,
            "source_bytes": self.source_bytes,
            "quality": dict(self.quality),
            "job": dict(self.job),
        }
        return text_pieces(entries, splits=self.splits, files=self.files)

    def write(self, store: Path) -> None:
        """Write the card into the folder ``store``, atomically."""
        write_atomically(store / CARD_NAME, self.to_text().encode())


def read_card(location: Location) -> Card:
    """Read and check the card of a store.

    Raises:
        UsageError: there is no store here, or this version of seit does not support it.
        DamagedError: the card is damaged.
    """
    folder = open_folder(location)
    path = folder.locate(CARD_NAME)
    try:
        size = folder.size(CARD_NAME)
        if size > MAX_CARD_BYTES:
            raise DamagedError(
                f"{path} is larger than {MAX_CARD_BYTES} bytes; restore it from a copy"
            )
        data = folder.read(CARD_NAME, 0, size)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UsageError(_no_store_at(folder)) from error
    head = _decode(data, _Head, path)
    found_format, version = head.format, head.version
    sealed = is_sealed(data)
    if found_format != FORMAT_NAME and (sealed or head.sha256 is UNSET):
        raise UsageError(f"{path} describes a {found_format!r}, not a {FORMAT_NAME!r}")
    if not sealed:
        raise DamagedError(
            f"{path} (store version {version}) does not match its checksum; restore it from a copy"
        )
    if version != FORMAT_VERSION:
        raise UsageError(
            f"{path} has store version {version}; this version of seit reads version "
            f"{FORMAT_VERSION}: upgrade seit"
        )
    _refuse_unknown(head, path)
    try:
        card = _decode(data, _Body, path).as_card()
        _check_names(card)
        _check_records(card)
        is_canonical = data.endswith(seal_entry(card.seal).encode())
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged ({error!r}); restore it from a copy") from error
    if not is_canonical:
        raise DamagedError(f"{path} is not the canonical text of a card; write it again")
    return card


def _no_store_at(folder: Folder) -> str:
    if not isinstance(folder, LocalFolder):
        return f"no store at {folder}: it holds no {CARD_NAME}; check the address"
    if (folder.path / JOB_FOLDER / "job.json").is_file():
        return (
            f"no store at {folder}: its tokenize job is unfinished; run the same `seit tokenize` "
            "command again to finish it"
        )
    if (folder.path / _RUN_NAME).is_file():
        return f"no store at {folder}: it is a run; `seit runs list {folder}` shows it"
    what = f"holds no {CARD_NAME}" if folder.path.is_dir() else "is not a folder"
    return f"no store at {folder}: it {what}; make one with `seit tokenize SRC {folder}`"


class _Head(msgspec.Struct):
    """Entries of a card that decide whether this version of seit reads it."""

    format: Any
    version: Any
    codec: Any = None
    container: Any = None
    sha256: Any = UNSET


class _CodecEntry(msgspec.Struct):
    name: str


class _SplitEntry(msgspec.Struct):
    shards: tuple[ShardRecord, ...]


class _Body(msgspec.Struct):
    """Entries of a card, decoded without a JSON tree, which would take ten times the memory."""

    tokenizer: TokenizerInfo
    codec: _CodecEntry
    container: str
    block_samples: Annotated[int, Meta(ge=1, le=MAX_COUNT)]
    classes: tuple[str, ...]
    splits: dict[str, _SplitEntry]
    files: tuple[FileRecord, ...]
    skipped: Annotated[int, Meta(ge=0, le=1 << 50)]
    source_bytes: Annotated[int, Meta(ge=0, le=1 << 62)]
    quality: dict[str, Any]
    job: dict[str, Any]

    def as_card(self) -> Card:
        """Return the card."""
        entries = {name: getattr(self, name) for name in self.__struct_fields__}
        splits = {name: split.shards for name, split in self.splits.items()}
        return Card(**{**entries, "codec": self.codec.name, "splits": splits})


def _decode(data: bytes, part: type[_Part], path: str) -> _Part:
    try:
        return msgspec.json.decode(data, type=part)
    except (ValueError, OverflowError, RecursionError) as error:
        reason = reason_of(error)
        raise DamagedError(f"{path} is damaged ({reason}); restore it from a copy") from error


def _refuse_unknown(head: _Head, path: str) -> None:
    """Refuse a codec or container of a later version by name, before the card is parsed.

    Raises:
        UsageError: the card names an unknown codec or container.
    """
    codec = head.codec
    names = {
        "codec": (codec.get("name") if isinstance(codec, dict) else None, CODECS),
        "container": (head.container, CONTAINERS),
    }
    for what, (name, known) in names.items():
        if isinstance(name, str) and name not in known:
            raise UsageError(
                f"{path} names the {what} {name!r}, which this version of seit lacks: upgrade seit"
            )


def _check_names(card: Card) -> None:
    for split in card.splits:
        if not is_split_name(split):
            raise ValueError(f"{_cut(split)} is not a plain name of a split")
    for record in card.records:
        if not is_inner_path(record.file):
            raise ValueError(f"{_cut(record.file)} is not a plain path inside the store")


def _check_records(card: Card) -> None:
    layout = card.layout
    if card.codec == ContextCodec.name and layout.num_codes > MAX_CONTEXT_CODES:
        raise ValueError(f"the codec {card.codec!r} serves no {layout.num_codes} codes")
    names = [CARD_NAME, *(record.file for record in card.records)]
    known = set(names)
    if len(known) != len(names):
        raise ValueError("a file is listed twice")
    for folder in _folders(card, names):
        if folder in known:
            raise ValueError(f"{_cut(folder)} is a file and a folder")
    for shard in chain(*card.splits.values()):
        _check_shard(card, shard, layout.sample_bytes)


def _folders(card: Card, names: Sequence[str]) -> set[str]:
    """Return the folders of all splits and files."""
    ending = ".zarr" if card.container == "zarr" else ""
    folders = {split + ending for split in card.splits}
    for name in names:
        folder = name.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return folders


def _check_shard(card: Card, shard: ShardRecord, sample_bytes: int) -> None:
    """Refuse more samples than a file of the shard's size can hold with any codec."""
    num_blocks = -(-shard.samples // card.block_samples)
    if num_blocks > MAX_SHARD_BLOCKS:
        raise ValueError(f"{shard.file} has more than {MAX_SHARD_BLOCKS} blocks")
    least = shard.samples * sample_bytes
    if card.codec == ContextCodec.name:
        least = shard.samples * min(sample_bytes, _LEAST_STREAM_BYTES)
    if card.container == "wds":
        least = max(least, num_blocks * _LEAST_BLOCK_BYTES)
    if least > shard.bytes:
        raise ValueError(f"{shard.samples} samples do not fit into {shard.file}")


def _cut(text: str) -> str:
    """Truncate a long string for a message."""
    return repr(text if len(text) <= _SHOWN_LENGTH else text[:_SHOWN_LENGTH] + "…")
