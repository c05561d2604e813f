"""A folder of rendered JPEG files, written by several processes and resumable at any file."""

from __future__ import annotations

import json
import multiprocessing
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from seit.demo.picture import check_picture, render
from seit.demo.shapes import CLASSES
from seit.documents import parse_json, read_plain
from seit.errors import UsageError
from seit.progress import Count

FIRST_VAL_INDEX = 50_000
"""First index of validation pictures; training pictures end before it. So neither split depends on
the other's size, and they never share a picture."""

_RECORD = ".renders.json"
_MAX_RECORD_BYTES = 1 << 16
_REVISION = 1  # Increase it when the same arguments give other pictures.
_CHUNK = 8
_END_OF_JPEG = b"\xff\xd9"


class _Job(NamedTuple):
    label: int
    number: int
    path: Path


def _jobs(out: Path, num_train: int, num_val: int) -> Iterator[_Job]:
    """Yield every file of the corpus; classes alternate, so their counts differ by at most one."""
    for split, count, first in (("train", num_train, 0), ("val", num_val, FIRST_VAL_INDEX)):
        for number in range(count):
            turn, label = divmod(number, len(CLASSES))
            index = first + turn
            yield _Job(label, index, out / split / CLASSES[label] / f"{index:05d}.jpg")


def _is_complete(path: Path) -> bool:
    """Return whether a file exists and ends as a JPEG file must."""
    try:
        with path.open("rb") as file:
            file.seek(-len(_END_OF_JPEG), os.SEEK_END)
            return file.read() == _END_OF_JPEG
    except OSError:
        return False


def _temporary(path: Path) -> Path:
    # Always the same name, so that the next call overwrites leftovers of an interrupted one.
    return path.with_name(f".{path.name}.part")


def _keep_freed_memory() -> None:
    """Make the C library reuse freed arrays instead of returning each to the system.

    glibc raises its limits to the largest block freed. The block is never touched, so it costs
    nothing, and rendering takes a third less time; no effect with other C libraries.
    """
    block = np.empty(31 << 20, np.uint8)
    del block


def _write(jobs: list[_Job], size: int, quality: int, seed: int) -> int:
    """Render and write each file under a temporary name, then rename it; return their number."""
    _keep_freed_memory()
    for job in jobs:
        part = _temporary(job.path)
        picture = Image.fromarray(render(job.label, job.number, size=size, seed=seed))
        picture.save(part, "JPEG", quality=quality)
        part.replace(job.path)
    return len(jobs)


def _write_in_processes(
    chunks: list[list[_Job]], workers: int, size: int, quality: int, seed: int
) -> Iterator[int]:
    """Yield the number of files written, chunk by chunk."""
    # Not fork: the caller may hold threads and locks, e.g. torch's.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(min(workers, len(chunks)), mp_context=context)
    try:
        pending: set[Future[int]] = {
            executor.submit(_write, chunk, size, quality, seed) for chunk in chunks
        }
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _check(out: Path, num_train: int, num_val: int, quality: int, workers: int | None) -> None:
    for name, count in (("num_train", num_train), ("num_val", num_val)):
        most = FIRST_VAL_INDEX * len(CLASSES)
        if not len(CLASSES) <= count <= most:
            raise UsageError(
                f"{name} is {count}, expected {len(CLASSES)} (one per class) to {most:,}: "
                "ask for another number of pictures"
            )
    if not 1 <= quality <= 95:
        raise UsageError(f"quality is {quality}, expected 1 to 95: choose another JPEG quality")
    if workers is not None and workers < 1:
        raise UsageError(f"workers is {workers}, expected at least 1: use 1 to stay in one process")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, expected a folder: remove it or name another folder")


def _claim(out: Path, record: dict[str, int]) -> None:
    """Record the arguments of ``out``, or refuse a folder with other ones."""
    path = out / _RECORD
    if path.exists():
        try:
            found = parse_json(read_plain(path, max_bytes=_MAX_RECORD_BYTES))
        except (OSError, ValueError):
            found = "unreadable"
        if found != record:
            raise UsageError(
                f"{path} says {json.dumps(found)}, expected {json.dumps(record)}: "
                "remove the folder or name another one"
            )
        return
    if (out / "train").exists() or (out / "val").exists():
        raise UsageError(
            f"{out} has a train or val folder but no {_RECORD}, expected a rendered corpus or an "
            "empty folder: name another folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    part = _temporary(path)
    part.write_text(json.dumps(record) + "\n", encoding="utf-8")
    part.replace(path)


def write_corpus(
    out: Path,
    *,
    num_train: int = 1600,
    num_val: int = 400,
    size: int = 256,
    quality: int = 90,
    seed: int = 0,
    workers: int | None = None,
    progress: Count | None = None,
) -> None:
    """Render a corpus into ``out/train/<class>/<index>.jpg`` and ``out/val/<class>/<index>.jpg``.

    Complete files are kept, so the same call resumes after an interruption; ``.renders.json`` in
    ``out`` records the arguments, and other ones are refused. The bytes do not depend on
    ``workers``. The default corpus is about 30 MB and takes about 40 seconds on one CPU core.

    Args:
        out: output folder, created if missing.
        num_train: total number of training pictures; evenly divided over classes (± 1).
        num_val: total number of validation pictures; evenly divided over classes (± 1).
        size: pixels along each side, 16 to 1,024.
        quality: JPEG quality, 1 to 95.
        seed: seed of the corpus.
        workers: number of processes; all CPU cores by default; 1 renders in this process.
        progress: called as ``progress(done, total)`` with numbers of files, existing ones included.

    Raises:
        UsageError: an argument is out of range, or ``out`` holds something else.
    """
    check_picture(size=size, seed=seed)
    _check(out, num_train, num_val, quality, workers)
    _claim(
        out,
        {
            "revision": _REVISION, "num_train": num_train, "num_val": num_val,
            "size": size, "quality": quality, "seed": seed,
        },
    )  # fmt: skip
    jobs = list(_jobs(out, num_train, num_val))
    for folder in {job.path.parent for job in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
    missing = [job for job in jobs if not _is_complete(job.path)]
    done = len(jobs) - len(missing)
    if progress is not None:
        progress(done, len(jobs))
    chunks = [missing[start : start + _CHUNK] for start in range(0, len(missing), _CHUNK)]
    if workers is None:
        workers = os.cpu_count() or 1
    if workers > 1 and len(chunks) > 1:
        try:
            for written in _write_in_processes(chunks, workers, size, quality, seed):
                done += written
                if progress is not None:
                    progress(done, len(jobs))
        except BrokenProcessPool:
            # The caller lacks an `if __name__ == "__main__"` guard, or a worker was killed.
            warnings.warn(
                "worker processes ended early: rendering the remaining pictures in one process",
                RuntimeWarning,
                stacklevel=2,
            )
        else:
            return
        missing = [job for job in missing if not _is_complete(job.path)]
        chunks = [missing[start : start + _CHUNK] for start in range(0, len(missing), _CHUNK)]
        done = len(jobs) - len(missing)
    for chunk in chunks:
        done += _write(chunk, size, quality, seed)
        if progress is not None:
            progress(done, len(jobs))
