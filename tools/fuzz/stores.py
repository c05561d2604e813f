"""Fuzz every operation on a store with a hostile card: none may write outside of its folder.

An input is a list of changes of a golden store's card: names of splits, paths, samples, sizes and
classes. Files are renamed along with their names. All writes of the process are watched.
"""

import atexit
import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from golden.make import GOLDEN, STORES

from seit.shards import CARD_NAME, open_store
from seit.stores import convert_store, delete_samples, filter_store, merge_stores, verify_store
from seit.stream.order import WindowOrder

SEPARATOR = b"|||"
"""Separates two changes."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = {
    "os.mkdir": 1,
    "os.remove": 1,
    "os.rmdir": 1,
    "os.rename": 2,
    "os.link": 2,
    "os.symlink": 2,
    "shutil.rmtree": 1,
}
"""Audit events that change a disk, and how many of their arguments are paths."""


def fuzz_store(case: int, effort: int, data: bytes) -> None:
    """Change a golden store's card, then run an operation on the store."""
    place = _scratch()
    golden = STORES[case % len(STORES)].name
    body, files = json.loads(golden_files(golden)[CARD_NAME]), dict(golden_files(golden))
    del body["sha256"], files[CARD_NAME]
    for change in data.split(SEPARATOR)[:8]:
        if len(change) > 2:
            _apply(body, files, change[0], change[1], change[2:])
    try:
        files[CARD_NAME] = sealed(json.dumps(body, indent=2, ensure_ascii=False) + "\n")
    except ValueError:  # a surrogate
        return
    store, out = place / "store", place / "out"
    _write_files(store, files)
    operation = _OPERATIONS[effort % len(_OPERATIONS)]
    try:
        with _watched(place) as strays:
            operation(store, out, GOLDEN / golden / "store")
    finally:
        for path in place.iterdir():
            shutil.rmtree(path, ignore_errors=True)
        assert not strays, f"written outside: {strays}"


def sealed(text: str) -> bytes:
    """Return a card's text with its seal."""
    body = text.removesuffix("\n}\n")
    digest = hashlib.sha256(f"{body}\n}}\n".encode()).hexdigest()
    return f'{body},\n  "sha256": "{digest}"\n}}\n'.encode()


def _apply(body: dict[str, Any], files: dict[str, bytes], kind: int, at: int, value: bytes) -> None:
    """Apply one change to the card, and rename files accordingly."""
    try:
        text = value.decode("utf-8", errors="surrogatepass")
    except UnicodeDecodeError:
        text = value.decode("utf-8", errors="replace")
    number = int.from_bytes(value[:8], "little")
    splits = body["splits"]
    shards = [shard for entry in splits.values() for shard in entry["shards"]]
    match kind % 8:
        case 0:
            _rename_split(splits, [*splits][at % len(splits)], text)
        case 1 | 2:
            old = [*splits][at % len(splits)]
            _rename_split(splits, old, text)
            for record in (*shards, *body["files"]):
                for ending in ("/", ".zarr/"):
                    if record["file"].startswith(old + ending):
                        new = text + record["file"].removeprefix(old)
                        _rename(record, new, files)
        case 3:
            records = [*shards, *body["files"]]
            _rename(records[at % len(records)], text, files)
        case 4:
            shard = shards[at % len(shards)]
            shard["samples"] = number
            for entry in splits.values():
                entry["samples"] = sum(one["samples"] for one in entry["shards"])
        case 5:
            records = [*shards, *body["files"]]
            records[at % len(records)]["bytes"] = number
        case 6:
            body["block_samples"] = number
        case _:
            body["classes"] = [*body["classes"][: at % 4], text]


def _rename_split(splits: dict[str, Any], old: str, new: str) -> None:
    entries = {new if name == old else name: entry for name, entry in splits.items()}
    splits.clear()
    splits.update(entries)


def _rename(record: dict[str, Any], new: str, files: dict[str, bytes]) -> None:
    if record["file"] in files:
        files[new] = files.pop(record["file"])
    record["file"] = new


def _write_files(store: Path, files: dict[str, bytes]) -> None:
    """Write the files whose paths stay inside the folder; the others are missing."""
    root = str(store)
    for name, data in files.items():
        path = os.path.normpath(f"{root}/{name}")
        if path.startswith(f"{root}/"):
            with contextlib.suppress(OSError, ValueError):
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).write_bytes(data)


# Operations


def _walk(store: Path, out: Path, golden: Path) -> None:  # noqa: ARG001
    for split in open_store(store).values():
        sizes = split.block_sizes
        if len(sizes):
            WindowOrder(sizes, seed=0).blocks_of(0, 0)
        assert len(split.labels) == len(split.keys) == len(split), "columns differ in length"
        assert len(split.packed()) == len(split.tokens[:]) == len(split.rows), "tokens differ"


def _filter(store: Path, out: Path, golden: Path) -> None:  # noqa: ARG001
    filter_store(store, out, patterns=["*1*", "*2*"])


def _merge(store: Path, out: Path, golden: Path) -> None:
    merge_stores(out, [golden, store], on_duplicate="skip")


def _other_container(store: Path, out: Path, golden: Path) -> None:  # noqa: ARG001
    card = open_store(store).card
    convert_store(store, out, container="wds" if card.container == "zarr" else "zarr")


def _entropy_coded(store: Path, out: Path, golden: Path) -> None:  # noqa: ARG001
    convert_store(store, out, codec="context")


def _official(store: Path, out: Path, golden: Path) -> None:  # noqa: ARG001
    convert_store(store, out, container="official")


def _copy(store: Path, out: Path, golden: Path) -> None:  # noqa: ARG001
    convert_store(store, out)


def _delete(store: Path, out: Path, golden: Path) -> None:  # noqa: ARG001
    keys = [split.keys[0] for split in open_store(store).values() if len(split)]
    delete_samples(store, keys[:1] or ["none"], missing="ok")


def _repair(store: Path, out: Path, golden: Path) -> None:  # noqa: ARG001
    verify_store(store, repair_from=golden)


_OPERATIONS: tuple[Callable[[Path, Path, Path], None], ...] = (
    _walk,
    _filter,
    _merge,
    _other_container,
    _entropy_coded,
    _official,
    _copy,
    _delete,
    _repair,
)


# Watching


class _Watch:
    """Collects the paths outside ``place`` that the process changes while active."""

    def __init__(self) -> None:
        self.place: str | None = None
        self.strays: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.place is None:
            return
        if event == "open":
            if isinstance(arguments[2], int) and arguments[2] & _WRITES:
                self._look(arguments[0])
        elif event in _CHANGES and arguments[-1] in (
            -1,
            None,
        ):  # otherwise relative to an open folder
            for path in arguments[: _CHANGES[event]]:
                self._look(path)

    def _look(self, path: Any) -> None:
        if isinstance(path, int) or os.fspath(path) == os.devnull:
            return
        whole = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - a name, not what it leads to
        if not (whole.startswith(f"{self.place}/") or "__pycache__" in whole):
            self.strays.append(whole)


@cache
def _watch() -> _Watch:
    return _Watch()


@contextlib.contextmanager
def _watched(place: Path) -> Iterator[list[str]]:
    watch = _watch()
    watch.strays.clear()
    watch.place = str(place)
    try:
        yield watch.strays
    finally:
        watch.place = None


@cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="seit-fuzz-")).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    place = folder / "place"
    place.mkdir()
    return place


@cache
def golden_files(name: str) -> dict[str, bytes]:
    """Return the bytes of all files of a golden store by name."""
    store = GOLDEN / name / "store"
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file()
    }


def store_seeds() -> Iterator[bytes]:
    """Yield seeds: each operation on each store, and names and sizes of every kind."""
    names = ["train", "../train", "/tmp/x", "a/b", ".x", "..", "a\\b", "C:x", "a\nb", "x" * 300]
    names += ["Train", "VAL", "skipped.jsonl", "store.json", "val.zarr", "train.partial", "fold 1"]
    for case in range(len(STORES)):
        for effort in range(len(_OPERATIONS)):
            yield bytes([case, effort])
            yield bytes([case, effort, 1, 0]) + names[effort % len(names)].encode()
    for number, name in enumerate(names):
        for kind in (0, 2, 3, 7):
            yield bytes([number % len(STORES), number % len(_OPERATIONS), kind, 0]) + name.encode()
    for kind, size in ((4, 40), (5, 50), (4, 26), (6, 16), (5, 20)):
        for effort in range(len(_OPERATIONS)):
            big = (1 << size).to_bytes(8, "little")
            yield bytes([0, effort, kind, 0]) + big + SEPARATOR + bytes([5, 0]) + big
