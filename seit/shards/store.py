"""Opening a store: ``seit.open(location)["train"]``.

Legend: K codes, C dimension of a codebook vector, L levels of a residual tokenizer.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError, SeitError, UsageError
from seit.numbers import counted
from seit.printable import printable
from seit.shards.card import CARD_NAME, Card, read_card
from seit.shards.codec_registry import build_codec
from seit.shards.codecs import Codec, PackedCodec
from seit.shards.folders import Folder, LocalFolder, Location, RetryPolicy, open_folder, with_cache
from seit.shards.listed import CODEBOOK_NAME, CODEBOOK_TENSOR, TABLES_TENSOR
from seit.shards.seal import SealedFolder
from seit.shards.split import Split
from seit.shards.zarr import ZarrGroup
from seit.tensors import parse_arrays

if TYPE_CHECKING:
    from seit.tokenizers import Tokenizer

TOKENIZER_NAME = "tokenizer.safetensors"
SKIPPED_NAME = "skipped.jsonl"


class Store(Mapping[str, Split]):
    """Tokenized corpus on a disk or behind a URL: a mapping from split names to splits.

    It is bound to its card: if another store takes its place, reading anything that is not in
    memory yet raises ``ChangedError`` and never returns a sample of the other store.

    Args:
        location: path, URL or folder of the store.
        card: its card.
        skips_damage: whether iteration and whole columns leave out the samples of damaged blocks.
        cache_dir: as in :func:`open_store`.
        cache_bytes: as in :func:`open_store`.

    Attributes:
        folder: the folder at ``location``.
        sealed: the same folder, bound to the card.
        files: the folder that files are read from: ``sealed``, behind a cache if it is remote.
    """

    def __init__(
        self,
        location: Location,
        card: Card,
        *,
        skips_damage: bool = False,
        cache_dir: str | Path | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        self.folder = open_folder(location).place
        self.card = card
        self.sealed = SealedFolder(self.folder, card)
        self.files = with_cache(
            self.sealed, identity=card.seal, cache_dir=cache_dir, cache_bytes=cache_bytes
        )
        self.skips_damage = skips_damage
        self._splits: dict[str, Split] = {}

    @property
    def path(self) -> Path:
        """The store's folder on this machine.

        Raises:
            UsageError: the store is remote; ``folder`` names the place.
        """
        if not isinstance(self.folder, LocalFolder):
            raise UsageError(f"{self.folder} is not a folder on this machine; copy the store first")
        return self.folder.path

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label indexes them."""
        return self.card.classes

    @property
    def num_bytes(self) -> int:
        """Size of all files of the store in bytes, including the card."""
        listed = sum(record.bytes for record in self.card.files)
        shards = sum(shard.bytes for split in self.card.splits.values() for shard in split)
        return listed + shards + self.card.num_bytes

    @cached_property
    def codec(self) -> Codec:
        """Codec of the tokens of every shard.

        Raises:
            DamagedError: the tables that it needs are missing or damaged.
        """
        return build_codec(self.card.codec, self.card.layout, tables=self.tables)

    @cached_property
    def tables(self) -> bytes | None:
        """The stored tables of the codec; None if it has none.

        Raises:
            DamagedError: they are missing or damaged.
        """
        if self.card.codec == PackedCodec.name:
            return None
        tables = self._read_tensor(TABLES_TENSOR)
        if tables.dtype != np.uint8 or tables.ndim != 1:
            raise DamagedError(
                f"{self.folder.locate(CODEBOOK_NAME)} holds tables {tables.dtype} {tables.shape}; "
                "expected bytes; restore it from a copy"
            )
        return tables.tobytes()

    @cached_property
    def codebook(self) -> npt.NDArray[np.float32]:
        """Codebook float32 (K, C), or (L, K, C) of a residual tokenizer, L dividing the rows."""
        codebook = self._read_tensor(CODEBOOK_TENSOR)
        info = self.card.tokenizer
        shape = (info.codebook_size, info.codebook_dim)
        levels = codebook.shape[0] if codebook.ndim == 3 else 1
        fits = codebook.ndim in (2, 3) and codebook.shape[-2:] == shape
        if not fits or not levels or info.grid[0] % levels or codebook.dtype != np.float32:
            raise DamagedError(
                f"{self.folder.locate(CODEBOOK_NAME)} holds a codebook {codebook.dtype} "
                f"{codebook.shape} where the card says float32 {shape}"
            )
        return codebook

    def _read_tensor(self, name: str) -> npt.NDArray[Any]:
        path = self.folder.locate(CODEBOOK_NAME)
        tensors = parse_arrays(self.read_listed(CODEBOOK_NAME), origin=path)
        if name not in tensors:
            raise DamagedError(f"{path} holds no tensor {name!r}; restore it from a copy")
        return tensors[name]

    def read_listed(self, name: str) -> bytes:
        """Read and check a file that the card lists.

        Raises:
            DamagedError: the card does not list the file, or it is damaged.
        """
        path = self.folder.locate(name)
        record = self.card.listed.get(name)
        if record is None:
            raise DamagedError(
                f"{self.folder.locate(CARD_NAME)} names no {name}; restore both from a copy"
            )
        try:
            data = self.files.read(name, 0, record.bytes)
        except OSError as error:
            raise DamagedError(
                f"{path} is damaged ({error.strerror or error}); restore it from a copy"
            ) from error
        if hashlib.sha256(data).hexdigest() != record.sha256:
            raise DamagedError(f"{path} does not match its checksum; restore it from a copy")
        return data

    @property
    def levels(self) -> int:
        """Levels of codes, stored one after the other as rows of a grid; usually 1."""
        return len(self.codebook) if self.codebook.ndim == 3 else 1

    @property
    def has_tokenizer_file(self) -> bool:
        """True if the card lists a tokenizer; stores of imported files have none."""
        return any(record.file == TOKENIZER_NAME for record in self.card.files)

    @cached_property
    def has_tokenizer_weights(self) -> bool:
        """True if the store holds its tokenizer's weights, not a reference (needs torch).

        Raises:
            DamagedError: the tokenizer's file is missing or damaged.
        """
        from seit.tokenizers import has_weights

        return self.has_tokenizer_file and has_weights(self.read_listed(TOKENIZER_NAME))

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """Tokenizer of the store, loaded once; see :meth:`load_tokenizer`."""
        return self.load_tokenizer()

    def load_tokenizer(self) -> "Tokenizer":
        """Load the tokenizer that made these tokens (needs torch).

        A tokenizer without weights can neither encode nor decode: that of files of naver-ai/seit,
        and a published one that is too large to travel with the tokens.

        Raises:
            UsageError: this version of seit lacks the tokenizer.
            DamagedError: its file is missing or damaged.
        """
        import torch

        from seit.tokenizers import ImportedTokenizer, load_tokenizer

        if not self.has_tokenizer_file:
            info = self.card.tokenizer
            settings = {"grid": list(info.grid)}
            codebook = torch.from_numpy(self.codebook.copy())
            return ImportedTokenizer.reference(codebook, settings, info.fingerprint)
        with tempfile.TemporaryDirectory(prefix="seit-") as folder:
            path = Path(folder) / TOKENIZER_NAME
            path.write_bytes(self.read_listed(TOKENIZER_NAME))
            return load_tokenizer(path, codebook=self.codebook)

    def __getitem__(self, split: str) -> Split:
        if split not in self.card.splits:
            raise UsageError(
                f"{self.folder} has no split {split!r}; it has {', '.join(self.card.splits)}"
            )
        if split not in self._splits:
            self._splits[split] = Split(self, split)
        return self._splits[split]

    def __contains__(self, split: object) -> bool:
        return split in self.card.splits

    def __iter__(self) -> Iterator[str]:
        return iter(self.card.splits)

    def __len__(self) -> int:
        return len(self.card.splits)

    def __repr__(self) -> str:
        splits = ", ".join(map(printable, self.card.splits))
        return f"<store {printable(self.folder)}: {counted(self.card.samples, 'sample')}, {splits}>"

    def _repr_html_(self) -> str:
        from seit.numbers import human_bytes
        from seit.report import summary_table

        card = self.card
        height, width = card.tokenizer.grid
        splits = ", ".join(f"{name} {card.samples_of(name):,}" for name in card.splits)
        per_sample = self.num_bytes / max(card.samples, 1)
        rows = [
            ("samples", splits),
            ("classes", f"{len(card.classes):,}"),
            ("size", f"{human_bytes(self.num_bytes)}, {per_sample:.0f} B per sample"),
            ("tokens", f"{height}×{width} of {card.tokenizer.codebook_size:,} codes"),
            ("tokenizer", card.tokenizer.name),
        ]
        return summary_table(f"store {self.folder}", rows)


def open_store(
    location: Location,
    *,
    on_damage: Literal["raise", "skip"] = "raise",
    storage_options: Mapping[str, Any] | None = None,
    retry: RetryPolicy | None = None,
    cache_dir: str | Path | None = None,
    cache_bytes: int | None = None,
) -> Store:
    """Open the store at a path or a URL such as ``s3://bucket/corpus``.

    Args:
        location: a path, or any URL that fsspec supports.
        on_damage: ``"skip"`` leaves the samples of damaged blocks out of iteration and whole
            columns (see :class:`Split`), at the cost of first reading the split once; by default
            they are an error.
        storage_options: arguments of fsspec's file system (endpoint, credentials, …).
        retry: limits of retries when a remote place does not answer.
        cache_dir: folder of cached blocks of remote stores; else ``SEIT_CACHE_DIR``, else the
            user's cache folder. Local stores are not cached.
        cache_bytes: most bytes of the cache, 0 for none; else ``SEIT_CACHE_BYTES``, else 10 GB.

    Raises:
        UsageError: there is no store, it needs a newer version of seit, or an argument is invalid.
        DamagedError: its card is damaged.
        SeitError: it could not be read.
    """
    if on_damage not in ("raise", "skip"):
        raise UsageError(f"on_damage is {on_damage!r}; expected 'raise' or 'skip'")
    folder = open_folder(location, storage_options=storage_options, retry=retry).place
    try:
        card = read_card(folder)
    except OSError as error:
        raise SeitError(f"{folder} could not be read: {error.strerror or error}") from error
    _check_groups(card, folder)
    return Store(
        folder,
        card,
        skips_damage=on_damage == "skip",
        cache_dir=cache_dir,
        cache_bytes=cache_bytes,
    )


def as_store(store: Store | Location) -> Store:
    """Return an open store as it is, or open the one at a path or URL; see `open_store`."""
    return store if isinstance(store, Store) else open_store(store)


def check_same_tokenizer(stores: Sequence[Store]) -> None:
    """Check that the tokens of several stores mean the same: one tokenizer, grid and codebook.

    Raises:
        UsageError: two stores differ in one of them.
    """
    first = stores[0]
    for store in stores[1:]:
        one, other = first.card.tokenizer, store.card.tokenizer
        if one.fingerprint != other.fingerprint:
            raise UsageError(
                f"{first.folder} and {store.folder} are of different tokenizers ({one.name} "
                f"{one.fingerprint[:12]}, {other.name} {other.fingerprint[:12]}); tokenize one "
                "corpus again with the tokenizer of the other"
            )
        if first.card.layout != store.card.layout:
            raise UsageError(
                f"{first.folder} holds grids {one.grid} of {one.codebook_size} codes and "
                f"{store.folder} grids {other.grid} of {other.codebook_size}; choose stores of one "
                "grid and codebook"
            )
        if not np.array_equal(first.codebook, store.codebook):
            raise UsageError(
                f"{first.folder} and {store.folder} have one fingerprint and different codebooks; "
                "`seit verify` both"
            )


def _check_groups(card: Card, folder: Folder) -> None:
    """Refuse a card of Zarr groups that no writer makes, before any of their files is read."""
    try:
        for split in card.splits if card.container == "zarr" else ():
            ZarrGroup.of(card, split)
    except DamagedError as error:
        raise DamagedError(f"{folder.locate(CARD_NAME)}: {error}") from error
