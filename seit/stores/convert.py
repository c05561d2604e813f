"""Conversion of stores: copies, other codecs and containers, official files."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from seit.errors import UsageError
from seit.outcomes import Outcome
from seit.progress import Count
from seit.shards import CARD_NAME, LocalFolder, Location, Store, open_folder, open_store
from seit.stores.copy import copy_store
from seit.stores.hub import hub_name, is_hub, upload_store
from seit.stores.official import export_official, find_official, import_official
from seit.stores.place import locked_target, place_store, work_folder
from seit.stores.recode import CONTAINERS, check_names, recode_store, recode_straight
from seit.stores.sink import RemoteSink

OFFICIAL = "official"
"""Container name of naver-ai/seit's files."""
OFFICIAL_GRID = (32, 32)
"""The only grid that readers of those files support; the files do not state theirs."""


@dataclass(frozen=True, repr=False)
class Conversion(Outcome):
    """Outcome of a conversion.

    Attributes:
        samples: samples in all splits.
        bytes: bytes of all files.
        bytes_per_sample: `bytes` over `samples`.
        codec: codec of the tokens; None in official files.
        container: format of the shards.
    """

    samples: int
    bytes: int
    bytes_per_sample: float
    codec: str | None
    container: str


def convert_store(
    source: Location,
    target: Location,
    *,
    codec: str | None = None,
    container: str | None = None,
    license_id: str = "",
    private: bool = False,
    progress: Count | None = None,
) -> Conversion:
    """Write the store at ``source`` to ``target``, losslessly and in the same order.

    Without ``codec`` and ``container`` every file is copied unchanged, and repeating an interrupted
    call resumes it. An option that is left out stays as in the source. ``source`` may be a folder
    of naver-ai/seit's files, and ``container="official"`` writes them, without keys, metadata or
    class names.

    Args:
        source: path or URL of a store, or local folder with official files.
        target: path or URL, new or empty; ``hf://owner/name`` is a dataset of the hub, which gets a
            dataset card too, see :func:`seit.stores.hub.upload_store`.
        codec: ``"packed"`` or ``"context"``, which becomes ``"packed"`` where it would not make the
            store smaller; see :func:`seit.stores.recode.recode_store`.
        container: ``"wds"``, ``"zarr"`` or ``"official"``.
        license_id: license on the dataset card of ``hf://``.
        private: whether a new dataset of ``hf://`` is private.
        progress: callback for progress.

    Raises:
        UsageError: there is nothing to convert, ``target`` is ``source`` or not empty, a name is
            unknown, or the tokens do not fit into official files, whose grids are 32×32.
        DamagedError: the source is damaged.
        SeitError: a disk is full or a remote server does not respond.
    """
    if is_hub(target):
        return _upload(
            source, str(target), codec, container, license_id, private=private, progress=progress
        )
    if license_id or private:
        raise UsageError(
            "a license and privacy are for uploads to hf://OWNER/NAME; leave --license and "
            "--private out"
        )
    _check_apart(source, target)
    if container == OFFICIAL:
        return _export(source, target, codec, progress)
    check_names(codec or "packed", container or "wds")
    if official := _official_folder(source):
        codec, container = codec or "context", container or CONTAINERS[0]
        with work_folder(target, resumes=container == CONTAINERS[0]) as folder:
            splits, codebook = find_official(official)
            imported = folder / "imported"
            import_official(splits, codebook, imported, progress=progress)
            store = open_store(imported)
            _recode(store, folder, target, codec=codec, container=container, progress=progress)
    elif codec is None and container is None:
        with locked_target(target):
            copy_store(source, target, progress=progress)
    else:
        store = open_store(source)
        codec, container = codec or store.card.codec, container or store.card.container
        with work_folder(target, resumes=container == CONTAINERS[0]) as folder:
            _recode(store, folder, target, codec=codec, container=container, progress=progress)
    return _described(open_store(target))


def _check_apart(source: Location, target: Location) -> None:
    """Refuse to convert a folder into itself."""
    one, other = open_folder(source), open_folder(target)
    if isinstance(one, LocalFolder) and isinstance(other, LocalFolder):
        is_same = one.path.resolve() == other.path.resolve()
    else:
        is_same = str(one).rstrip("/") == str(other).rstrip("/")
    if is_same:
        raise UsageError(
            f"{one} is both SRC and DST, and a store is not converted in place; name a new DST"
        )


def _described(store: Store) -> Conversion:
    samples = store.card.samples
    return Conversion(
        samples=samples,
        bytes=store.num_bytes,
        bytes_per_sample=store.num_bytes / max(samples, 1),
        codec=store.card.codec,
        container=store.card.container,
    )


def _upload(
    source: Location,
    target: str,
    codec: str | None,
    container: str | None,
    license_id: str,
    *,
    private: bool,
    progress: Count | None,
) -> Conversion:
    """Upload a store, which is copied or converted into a temporary folder first if necessary."""
    hub_name(target)
    if container == OFFICIAL:
        raise UsageError("official files are written to a local folder, not to the hub")
    place = open_folder(source)
    with TemporaryDirectory(prefix="seit-") as temporary:
        folder = Path(temporary) / "store"
        if isinstance(place, LocalFolder) and codec is None and container is None:
            folder = place.path
        if folder.parent == Path(temporary) or _official_folder(source) is not None:
            folder = Path(temporary) / "store"
            convert_store(source, folder, codec=codec, container=container)
        store = open_store(folder)
        upload_store(
            store, folder, target, license_id=license_id, private=private, progress=progress
        )
        return _described(store)


def _recode(
    store: Store,
    folder: Path,
    target: Location,
    *,
    codec: str,
    container: str,
    progress: Count | None,
) -> None:
    """Write a store at ``target``, through a work folder; tars go to a remote one straight."""
    place = open_folder(target)
    if container == CONTAINERS[0] and not isinstance(place, LocalFolder):
        request = {"convert": store.card.seal, "codec": codec}
        recode_straight(store, RemoteSink(place, folder, request), codec=codec, progress=progress)
        return
    made = folder / "store"
    recode_store(store, made, codec=codec, container=container, progress=progress)
    place_store(made, target)


def _export(
    source: Location, target: Location, codec: str | None, progress: Count | None
) -> Conversion:
    if codec is not None:
        raise UsageError(f"official files have one codec only; leave out --codec {codec}")
    place = open_folder(target)
    if not isinstance(place, LocalFolder):
        raise UsageError(f"official files are written to a local folder, not to {place}")
    store = open_store(source)
    grid = store.card.tokenizer.grid
    if store.codebook.ndim == 2 and grid != OFFICIAL_GRID:  # several levels are refused below
        raise UsageError(
            f"{store.folder} holds grids of {grid[0]}×{grid[1]} and naver-ai/seit's files only "
            f"hold {OFFICIAL_GRID[0]}×{OFFICIAL_GRID[1]}, those of images of 256 px"
        )
    with locked_target(target):
        written = export_official(store, place.path, progress=progress)
    samples, num_bytes = store.card.samples, sum(written.values())
    return Conversion(samples, num_bytes, num_bytes / max(samples, 1), None, OFFICIAL)


def _official_folder(source: Location) -> Path | None:
    """Return the folder at ``source`` if it holds official files and no store."""
    folder = open_folder(source)
    if not isinstance(folder, LocalFolder) or folder.exists(CARD_NAME):
        return None
    return folder.path if any(folder.path.glob("*.data.bin.gz")) else None
