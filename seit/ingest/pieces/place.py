"""Place of a job in pieces: the folder of its store, on a disk or in object storage.

All workers write there, so no disk is shared and no machine holds the store. What a piece becomes
depends on the piece and the settings alone: two workers that make the same piece, or two drivers
of the same job, write the same bytes. So there is nothing to lock and no clock to trust. A job
begins by the conditional write of its description; a driver with another one is refused.

``.tokenize/`` holds the description, the tokenizer, the codec's tables and a record of each
finished piece, and is removed after the card is written.
"""

import json
import platform
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import seit
from seit.documents import parse_json
from seit.errors import DamagedError, SeitError, UsageError
from seit.files import explained_writes, inside, publish, write_atomically
from seit.ingest.pieces.piece import PieceRecord
from seit.ingest.sources.remote import ListedFolder
from seit.lookahead import map_ahead
from seit.processor import cpu_kind
from seit.shards import (
    CARD_NAME,
    CODEBOOK_NAME,
    TABLES_TENSOR,
    TOKENIZER_NAME,
    Card,
    Codec,
    ContextCodec,
    Folder,
    LocalFolder,
    PackedCodec,
    ShardRecord,
    TokenLayout,
    codebook_file,
    hide_secrets,
    is_url,
    open_folder,
    open_store,
)
from seit.store_folders import JOB_FOLDER
from seit.tensors import parse_arrays
from seit.tokenizers import Tokenizer, load_tokenizer, save_tokenizer

_JOB = f"{JOB_FOLDER}/job.json"
_READY = f"{JOB_FOLDER}/ready.json"
_WORKER = f"{JOB_FOLDER}/worker.json"
_TOKENIZER = f"{JOB_FOLDER}/{TOKENIZER_NAME}"
_CODEBOOK = f"{JOB_FOLDER}/{CODEBOOK_NAME}"
_MAX_BYTES = 1 << 28
_SHARD = re.compile(r"[^/.][^/]*/[0-9]{5,}\.tar")


@dataclass(frozen=True)
class Ready:
    """Outcome of the fit that precedes the work.

    Attributes:
        codec: name of the codec.
        quality: quality of the tokenizer on the sample.
    """

    codec: str
    quality: Mapping[str, float]


class JobPlace:
    """Folder of a job in pieces. It pickles, and every worker opens its own.

    Args:
        store: path or URL of the store.
    """

    def __init__(self, store: str) -> None:
        self.store = store if is_url(store) else str(Path(store).absolute())
        self.folder: Folder = open_folder(self.store)

    def read_job(self) -> dict[str, Any] | None:
        """Return the description of the job that began here; None without one, {} if damaged."""
        data = self._read(_JOB)
        if data is None:
            return None
        try:
            return dict(parse_json(data))
        except (ValueError, TypeError):
            return {}

    def claim(self, job: Mapping[str, Any]) -> bool:
        """Write the description of a job unless another began first; return whether it was."""
        return self.folder.create(_JOB, json.dumps(job, indent=2).encode())

    def read_ready(self) -> Ready | None:
        """Return the outcome of the fit; None if it is not done."""
        data = self._read(_READY)
        try:
            return None if data is None else Ready(**parse_json(data))
        except (ValueError, TypeError) as error:
            raise self._damaged(_READY) from error

    def write_fit(self, tokenizer: Tokenizer, codec: Codec, ready: Ready) -> None:
        """Write the fitted tokenizer and codec; workers may begin after that."""
        with tempfile.TemporaryDirectory(prefix="seit-") as folder:
            path = Path(folder) / TOKENIZER_NAME
            save_tokenizer(tokenizer, path)
            self.folder.write(_TOKENIZER, path.read_bytes())
        self.folder.write(_CODEBOOK, codebook_file(tokenizer.codebook.cpu().numpy(), codec))
        self.folder.write(_READY, json.dumps(vars(ready)).encode())

    def load_tokenizer(self) -> Tokenizer:
        """Load the tokenizer of the job.

        Raises:
            SeitError: it is not there.
        """
        data = self._read(_TOKENIZER)
        if data is None:
            raise SeitError(
                f"{platform.node()} finds no job at {self}; every machine must reach this place "
                "under the same address"
            )
        with tempfile.TemporaryDirectory(prefix="seit-") as folder:
            path = Path(folder) / TOKENIZER_NAME
            path.write_bytes(data)
            return load_tokenizer(path)

    def load_codec(self, layout: TokenLayout, name: str) -> Codec:
        """Load the codec of the job.

        Raises:
            DamagedError: its tables are missing.
        """
        if name == PackedCodec.name:
            return PackedCodec(layout)
        tables = parse_arrays(self.codebook(), origin=self.folder.locate(_CODEBOOK))
        return ContextCodec.build(layout, tables[TABLES_TENSOR].tobytes())

    def codebook(self) -> bytes:
        """Return the contents of the store's codebook file.

        Raises:
            DamagedError: it is missing.
        """
        data = self._read(_CODEBOOK)
        if data is None:
            raise self._damaged(_CODEBOOK)
        return data

    def check_worker(self, *, device: str, mixed: bool) -> None:
        """Refuse a worker that may make other bytes than the first one.

        Args:
            device: name of the device that encodes.
            mixed: whether workers may have different processors.

        Raises:
            UsageError: it has another version of seit, or another processor and not ``mixed``.
        """
        own = {"version": seit.__version__, "processor": f"{cpu_kind()}, {device}"}
        if self.folder.create(_WORKER, json.dumps(own).encode()):
            return
        first = json.loads(self._read(_WORKER) or b"{}")
        if first.get("version") != own["version"]:
            raise UsageError(
                f"{platform.node()} has seit {own['version']} and the job at {self} was begun with "
                f"{first.get('version')}; install one version on all machines"
            )
        if first.get("processor") != own["processor"] and not mixed:
            raise UsageError(
                f"{platform.node()} encodes on {own['processor']} and the job at {self} was begun "
                f"on {first.get('processor')}, which may round differently; use one kind of "
                "machine, or pass --mixed-processors if runs need not repeat to the byte"
            )

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Provide a folder to write shards in, on the disk of the store if it is local."""
        if not isinstance(self.folder, LocalFolder):
            with tempfile.TemporaryDirectory(prefix="seit-") as name:
                yield Path(name)
            return
        path = self.folder.path / JOB_FOLDER / "workers" / uuid.uuid4().hex
        with explained_writes(path):
            path.mkdir(parents=True)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def put(self, scratch: Path, record: ShardRecord) -> None:
        """Move a finished shard from the scratch folder to its place."""
        path = inside(scratch, record.file)
        if isinstance(self.folder, LocalFolder):
            target = inside(self.folder.path, record.file)
            with explained_writes(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                publish(path, target)
            return
        self.folder.upload(record.file, path, sha256=record.sha256)
        path.unlink()

    def write_record(self, scratch: Path, name: str, record: PieceRecord) -> None:
        """Record a piece as finished."""
        data = record.to_json()
        if not isinstance(self.folder, LocalFolder):
            self.folder.write(_record_name(name), data)
            return
        path, target = scratch / f"{name}.json", inside(self.folder.path, _record_name(name))
        write_atomically(path, data)
        with explained_writes(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            publish(path, target)

    def read_record(self, name: str) -> PieceRecord | None:
        """Return the record of a finished piece; None without one, or with a damaged one."""
        data = self._read(_record_name(name))
        try:
            return None if data is None else PieceRecord.from_json(data)
        except ValueError:
            return None

    def forget(self, name: str) -> None:
        """Remove the record of a piece or of its revision, so that it is made again."""
        self._remove(_record_name(name))

    def write_hashes(self, name: str, data: bytes) -> None:
        """Write the hashes of the keys of a piece."""
        self.folder.write(_hashes_name(name), data)

    def read_hashes(self, name: str) -> bytes:
        """Return the hashes of the keys of a piece; nothing if they are missing."""
        return self._read(_hashes_name(name)) or b""

    def finished(self) -> set[str]:
        """Return the names of the pieces with a record, from one listing."""
        try:
            names = open_folder(f"{self.store.rstrip('/')}/{JOB_FOLDER}/done").names()
        except FileNotFoundError:
            return set()
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}

    def sizes_of(self, shards: Iterable[ShardRecord]) -> Iterator[tuple[ShardRecord, int]]:
        """Yield each shard with the bytes of its file; −1 if it is missing.

        Object storage is asked for a listing, a thousand names at a time.
        """
        if isinstance(self.folder, LocalFolder):
            for shard in shards:
                yield shard, self._size(shard.file)
            return
        sizes = ListedFolder(self.store).sizes()
        for shard in shards:
            yield shard, sizes.get(shard.file, -1)

    def write_card(self, card: Card) -> None:
        """Write the card, unless there is one.

        Raises:
            UsageError: another job wrote a card meanwhile.
        """
        if self.folder.create(CARD_NAME, card.to_text().encode()):
            return
        if open_store(self.folder).card.seal != card.seal:
            raise UsageError(
                f"another job wrote a store at {self} meanwhile; it was left as it is, and the "
                "shards of this one are overwritten in part: choose another STORE"
            )

    def empty(self, *, but: str = "") -> None:
        """Remove the store and the job at the place, the card first; ``but`` and others stay."""
        names = self._names()
        ours = [name for name in names if _is_ours(name)]
        if CARD_NAME in names:
            with suppress(SeitError):  # a damaged card lists nothing
                listed = {record.file for record in open_store(self.folder).card.records}
                ours += [name for name in names if name in listed and not _is_ours(name)]
            self.folder.remove(CARD_NAME)
        self._remove_all(name for name in ours if name != but)

    def clean_up(self, listed: Iterable[str]) -> None:
        """Remove the job's folder, and shards that were renumbered, from a finished store."""
        known = set(listed)
        self._remove_all(name for name in self._names() if _is_ours(name) and name not in known)
        if isinstance(self.folder, LocalFolder):
            shutil.rmtree(self.folder.path / JOB_FOLDER, ignore_errors=True)

    def check_empty(self) -> None:
        """Check that nothing else is at the place.

        Raises:
            UsageError: it holds something that is not a job, or cannot be listed.
        """
        for name in self._names():
            if not name.startswith(f"{JOB_FOLDER}/"):
                raise UsageError(
                    f"{self} already holds {name!r} and no store; choose a new or empty place"
                )

    def locate(self, name: str) -> str:
        """Return the name of a file for messages."""
        return self.folder.locate(name)

    def __str__(self) -> str:
        return hide_secrets(str(self.folder))

    def _names(self) -> list[str]:
        try:
            return self.folder.names()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UsageError(f"{error}; check the address and your credentials") from None

    def _read(self, name: str) -> bytes | None:
        try:
            size = self.folder.size(name)
            if size > _MAX_BYTES:
                raise self._damaged(name)
            return self.folder.read(name, 0, size)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UsageError(f"{error}; check the address and your credentials") from None

    def _size(self, name: str) -> int:
        try:
            return self.folder.size(name)
        except (FileNotFoundError, NotADirectoryError):
            return -1

    def _remove_all(self, names: Iterable[str]) -> None:
        """Remove files; the description of the job last, so that a kill leaves it to be found."""
        others = [name for name in names if name != _JOB]
        for _ in map_ahead(self._remove, others):
            pass
        self._remove(_JOB)

    def _remove(self, name: str) -> None:
        try:
            self.folder.remove(name)
        except FileNotFoundError:
            return

    def _damaged(self, name: str) -> DamagedError:
        return DamagedError(
            f"{self.folder.locate(name)} is damaged; pass --overwrite to begin the job again"
        )


def record_name(number: int) -> str:
    """Return the name of the record of a piece."""
    return f"{number:08d}"


def revision_name(number: int) -> str:
    """Return the name of the record of a piece after its revision."""
    return f"{record_name(number)}-revised"


def _record_name(name: str) -> str:
    return f"{JOB_FOLDER}/done/{name}.json"


def _is_ours(name: str) -> bool:
    """Return True for a file of a job in pieces: one of its folder, or a shard."""
    return name.startswith(f"{JOB_FOLDER}/") or _SHARD.fullmatch(name) is not None


def _hashes_name(name: str) -> str:
    return f"{JOB_FOLDER}/keys/{name}.bin"
