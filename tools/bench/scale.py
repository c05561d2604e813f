"""Measure very large stores: open, count, keep, stream, merge; and listings. Prints JSON.

    uv run python tools/bench/scale.py --json

Simulated: the shards are one real file under as many names, and grids are small (16×16 if kept,
2×2 if streamed), so that 10⁸ samples fit on a disk. Cards, block indexes, orders, reads and memory
are those of real stores. Each part runs in a process of its own; its memory is the peak of the
process, imports included.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from seit.shards import (
    CODEBOOK_NAME,
    Block,
    Card,
    FileRecord,
    PackedCodec,
    ShardRecord,
    ShardWriter,
    TokenizerInfo,
    TokenLayout,
    codebook_file,
    open_store,
    write_index,
    write_listed,
)
from seit.stores import describe_store, merge_stores

SHARD_SAMPLES, BLOCK_SAMPLES = 8192, 1024
NUM_CODES, NUM_CLASSES = 1024, 1000
_TAR_SAMPLES = 10_000
KEY = "train/n01440764/n01440764_{:08d}_of_a_photo_with_a_usual_name_{:08x}.JPEG"
"""Keys of 75 bytes, most of them shared, as in ImageNet-21k and LAION."""


def make_card(
    folder: Path,
    shards: tuple[ShardRecord, ...],
    *,
    grid: tuple[int, int],
    classes: tuple[str, ...],
    files: tuple[FileRecord, ...] = (),
) -> None:
    """Write the card of a simulated store, with a codebook."""
    codebook = np.arange(NUM_CODES, dtype=np.float32)[:, None]
    codec = PackedCodec(TokenLayout(grid=grid, num_codes=NUM_CODES))
    listed = tuple(write_listed(folder, {CODEBOOK_NAME: codebook_file(codebook, codec)}))
    info = TokenizerInfo("simulated", "0" * 64, "image", {"size": 256}, grid, NUM_CODES, 1, False)
    Card(
        tokenizer=info,
        codec=codec.name,
        container="wds",
        block_samples=BLOCK_SAMPLES,
        classes=classes,
        splits={"train": shards},
        files=(*listed, *files),
        skipped=0,
        source_bytes=0,
        quality={},
        job={},
    ).write(folder)


def make_store(
    folder: Path, num_shards: int, *, side: int, samples: int = SHARD_SAMPLES, first_class: int = 0
) -> None:
    """Write a store whose shards are links to one file, with an index."""
    generator = np.random.default_rng(0)
    codec = PackedCodec(TokenLayout(grid=(side, side), num_codes=NUM_CODES))
    with ShardWriter(folder, split="train", index=0, codec=codec) as writer:
        for start in range(0, samples, BLOCK_SAMPLES):
            rows = range(start, min(start + BLOCK_SAMPLES, samples))
            tokens = generator.integers(0, NUM_CODES, (len(rows), side, side), dtype=np.uint16)
            labels = generator.integers(0, NUM_CLASSES, len(rows), dtype=np.int32)
            keys = tuple(KEY.format(row, row * 7919 + first_class) for row in rows)
            writer.write(Block(tokens=tokens, labels=labels, keys=keys))
    first = writer.record
    made = folder / first.file
    names = [first.file, *(f"train/c{number:06d}.tar" for number in range(1, num_shards))]
    for name in names[1:]:
        os.link(made, folder / name)
    shards = tuple(ShardRecord(name, first.bytes, first.sha256, first.samples) for name in names)
    classes = tuple(f"class {first_class + number}" for number in range(NUM_CLASSES))
    index = write_index(folder, "train", shards)
    make_card(folder, shards, grid=(side, side), classes=classes, files=(index,))


def measure_card(folder: Path, size: int) -> Mapping[str, float]:
    """Open a card of ``size`` shards and describe it."""
    shards = tuple(
        ShardRecord(f"train/{n:06d}.tar", 10_506_240, hashlib.sha256(b"%d" % n).hexdigest(), 8192)
        for n in range(size)
    )
    classes = tuple(f"class {number}" for number in range(NUM_CLASSES))
    make_card(folder, shards, grid=(32, 32), classes=classes)
    return in_new_process("open", folder, size)


def _open(folder: Path, size: int) -> dict[str, float]:
    start, before = time.process_time(), peak_bytes()
    store = open_store(folder)
    opened = time.process_time()
    found = describe_store(store)
    split = store["train"]
    assert (found.shards, found.samples) == (size, len(split)), "the card is another"
    return {
        "shards": size,
        "card_bytes": (folder / "store.json").stat().st_size,
        "open_cpu_seconds": opened - start,
        "describe_and_split_cpu_seconds": time.process_time() - opened,
        "imports_bytes": before,
        "peak_bytes": peak_bytes(),
    }


def measure_resident(folder: Path, size: int) -> Mapping[str, float]:
    """Keep a split of ``size`` samples of 16×16 tokens in memory."""
    make_store(folder, -(-size // SHARD_SAMPLES), side=16)
    make_store(folder / "small", 1, side=16)
    return in_new_process("keep", folder, size)


def _keep(folder: Path, size: int) -> dict[str, float]:
    from seit.stream import loader
    from seit.stream.order import Mode

    del size
    split = open_store(folder)["train"]
    packed = len(split) * split.layout.sample_bytes
    modes: tuple[Mode, ...] = ("streaming", "resident")
    for mode in modes:  # loads and compiles what is needed
        warm = loader(
            open_store(folder / "small")["train"], batch_size=64, order="window", mode=mode
        )
        _ = next(iter(warm)).keys
        warm.close()
    before, start = current_bytes(), time.process_time()
    batches = loader(split, batch_size=256, mode="resident", seed=0)
    batch = next(iter(batches))
    seconds, kept = time.process_time() - start, current_bytes() - before
    start = time.process_time()
    assert len(batch.keys) == len(batch), "a sample lacks a key"
    keys_cpu, start = time.process_time() - start, time.process_time()
    steps = islice(batches.epoch(1, start=len(batches) // 2), 200)
    drawn = np.concatenate([one.indices for one in steps])
    assert len(np.unique(drawn)) == 200 * 256, "a sample came twice"
    return {
        "samples": len(split),
        "packed_bytes": packed,
        "kept_bytes": kept,
        "kept_bytes_per_sample_beyond_packed": (kept - packed) / len(split),
        "peak_bytes_per_sample_beyond_packed": (peak_bytes() - before - packed) / len(split),
        "imports_bytes": before,
        "peak_bytes": peak_bytes(),
        "load_cpu_seconds": seconds,
        "keys_of_a_batch_cpu_seconds": keys_cpu,
        "samples_per_cpu_second": 200 * 256 / (time.process_time() - start),
    }


def measure_stream(folder: Path, size: int) -> Mapping[str, float]:
    """Stream an epoch of ``size`` samples of 2×2 tokens: order, memory and resume."""
    make_store(folder, -(-size // SHARD_SAMPLES), side=2)
    return in_new_process("stream", folder, size)


def _stream(folder: Path, size: int) -> dict[str, Any]:
    from seit.stream import loader

    del size
    split = open_store(folder)["train"]
    settings: dict[str, Any] = {"batch_size": 4096, "mode": "streaming", "order": "window"}
    batches = loader(split, seed=1, **settings)
    _ = next(iter(loader(split, seed=2, **settings)))  # compiles
    before, start, wall = current_bytes(), time.process_time(), time.perf_counter()
    seen = np.zeros(len(split), dtype=bool)
    middle, checked = len(batches) // 2, {}
    for number, batch in enumerate(batches.epoch(0)):
        assert not seen[batch.indices].any(), "a sample came twice"
        seen[batch.indices] = True
        if number in (middle, middle + 1):
            checked[number] = (batch.indices.copy(), batch.tokens.clone(), batch.keys)
    epoch_cpu, epoch_wall = time.process_time() - start, time.perf_counter() - wall
    start = time.process_time()
    again = loader(split, seed=1, **settings)
    for number, batch in enumerate(again.epoch(0, start=again.resume(batches.state(middle)))):
        indices, tokens, keys = checked[middle + number]
        assert np.array_equal(indices, batch.indices), "another order after a resume"
        assert tokens.equal(batch.tokens), "other tokens after a resume"
        assert keys == batch.keys, "other keys after a resume"
        if number:
            break
    resume_cpu = time.process_time() - start
    batches.close()
    again.close()
    parts = []
    for rank in range(2):
        shared = loader(split, seed=1, rank=rank, world_size=2, **settings)
        found = shared.epoch(0, start=shared.resume(batches.state(middle)))
        parts.append(next(iter(found)).indices)
        shared.close()
    both = np.sort(np.concatenate(parts))
    assert np.array_equal(both, np.sort(checked[middle][0])), "two ranks resume elsewhere"
    missing = len(split) - int(seen.sum())
    assert missing == len(split) - len(batches) * 4096, "the epoch lacks samples"
    return {
        "samples": len(split),
        "samples_per_cpu_second": len(split) / epoch_cpu,
        "samples_per_second": len(split) / epoch_wall,
        "left_out_in_the_last_batch": missing,
        "resume_in_the_middle_cpu_seconds": resume_cpu,
        "peak_bytes_beyond_imports": peak_bytes() - before - seen.nbytes,
    }


def measure_counts(folder: Path, size: int) -> Mapping[str, float]:
    """Count the classes of ``size`` samples of 2×2 tokens, twice."""
    make_store(folder, -(-size // SHARD_SAMPLES), side=2)
    os.environ["XDG_CACHE_HOME"] = str(folder / ".cache")
    return in_new_process("count", folder, size)


def _count(folder: Path, size: int) -> dict[str, float]:
    del size
    describe_store(folder)  # imports
    before, start = current_bytes(), time.process_time()
    first = describe_store(folder, counts=True)
    middle = time.process_time()
    assert describe_store(folder, counts=True) == first, "other counts when recalled"
    return {
        "samples": first.samples,
        "cpu_seconds": middle - start,
        "cpu_seconds_again": time.process_time() - middle,
        "peak_bytes_beyond_imports": peak_bytes() - before,
    }


def measure_merge(folder: Path, size: int) -> Mapping[str, float]:
    """Merge ``size`` stores of 1,000 other classes each."""
    for number in range(size):
        place = folder / f"part{number}"
        make_store(place, 1, side=2, samples=64, first_class=number * NUM_CLASSES)
    return in_new_process("merge", folder, size)


def _merge(folder: Path, size: int) -> dict[str, float]:
    start = time.process_time()
    parts = [folder / f"part{number}" for number in range(size)]
    merged = merge_stores(folder / "merged", parts, prefix=True)
    seconds = time.process_time() - start
    return {
        "stores": size,
        "classes": merged.classes,
        "cpu_seconds": seconds,
        "cpu_seconds_per_store": seconds / size,
        "peak_bytes": peak_bytes(),
    }


def measure_listing(folder: Path, size: int) -> Mapping[str, Any]:
    """List ``size`` instances of a table, and of tars with generated headers."""
    table, tars = folder / "corpus.csv", folder / "tars"
    with table.open("w") as file:
        file.write("path,label,width\n")
        for row in range(size):
            file.write(f"n{row % NUM_CLASSES:08d}/photo_{row:09d}.jpg,n{row % NUM_CLASSES},640\n")
    tars.mkdir()
    for start in range(0, size, _TAR_SAMPLES):
        write_tar(tars / f"train-{start // _TAR_SAMPLES:06d}.tar", start, _TAR_SAMPLES)
    return {
        "table": in_new_process("list", table, size),
        "tars": in_new_process("list", tars, size),
    }


def write_tar(path: Path, start: int, count: int) -> None:
    """Write generated samples: a small body that is no picture, and a class."""
    with path.open("wb") as file:
        for row in range(start, start + count):
            for suffix, data in (("jpg", b"x" * 100), ("cls", b"%d" % (row % NUM_CLASSES))):
                header = tarfile.TarInfo(f"{row:09d}.{suffix}")
                header.size = len(data)
                file.write(header.tobuf(tarfile.USTAR_FORMAT) + data.ljust(512, b"\0"))
        file.write(bytes(1024))


def _list(source: Path, size: int) -> dict[str, float]:
    import webdataset.tariterators  # noqa: F401  loads torch

    from seit.ingest import list_corpus
    from seit.ingest.plan import plan_shards

    before, start = current_bytes(), time.process_time()
    corpus = list_corpus(str(source), val_fraction=0.1)
    plans = list(plan_shards(corpus, shard_samples=SHARD_SAMPLES))
    assert plans, "nothing is planned"
    return {
        "instances": len(corpus.instances),
        "cpu_microseconds_per_instance": (time.process_time() - start) / size * 1e6,
        "kept_bytes_per_instance": (current_bytes() - before) / size,
        "peak_bytes_per_instance": (peak_bytes() - before) / size,
    }


def measure_folders(folder: Path, size: int) -> Mapping[str, Any]:
    """Plan ``size`` files in pieces, in few and in many class folders; the walk is simulated."""
    found = {}
    for count in (1, 300, size // 100):
        for number in range(count):
            (folder / f"in_{count}" / f"class {number:08d}").mkdir(parents=True)
        found[f"in_{count}"] = in_new_process("plan", folder / f"in_{count}", size)
    return found


def _plan(source: Path, size: int) -> dict[str, float]:
    from seit.ingest import TokenizeConfig
    from seit.ingest.pieces.find import find_pieces
    from seit.ingest.resolve import resolve_tokenizer
    from seit.ingest.sources import summary, walk

    names = sorted(path.name for path in source.iterdir())
    per_folder = size // len(names)

    def scan(_path: str, relative: str, _remarks: walk.Remarks) -> Iterator[walk.Entry]:
        if relative:
            for number in range(per_folder):
                yield walk.Entry(f"photo_{number:09d}.jpg", False, False, 100_000 + number)
        else:
            yield from (walk.Entry(name, True, False, -1) for name in names)

    summary.scan = scan
    config, _ = resolve_tokenizer(TokenizeConfig(plan="pieces", tokenizer="patch-pca-vq"))
    before, start = current_bytes(), time.process_time()
    pieces = find_pieces(source, config)
    assert pieces.samples == per_folder * len(names), "files are missing"
    return {
        "files": per_folder * len(names),
        "folders": len(names),
        "pieces": len(pieces.pieces),
        "cpu_microseconds_per_file": (time.process_time() - start) / size * 1e6,
        "kept_bytes": current_bytes() - before,
        "peak_bytes": peak_bytes() - before,
    }


MEASURES: Mapping[str, Callable[[Path, int], Mapping[str, Any]]] = {
    "card": measure_card,
    "counts": measure_counts,
    "resident": measure_resident,
    "stream": measure_stream,
    "merge": measure_merge,
    "listing": measure_listing,
    "folders": measure_folders,
}
STEPS = {
    "open": _open,
    "count": _count,
    "keep": _keep,
    "stream": _stream,
    "merge": _merge,
    "list": _list,
    "plan": _plan,
}
SIZES = {
    "card": [12_200, 122_000],
    "counts": [10_000_000],
    "resident": [2_000_000, 14_200_000],
    "stream": [10_000_000, 100_000_000],
    "merge": [25, 50, 100],
    "listing": [1_000_000],
    "folders": [300_000],
}


def in_new_process(step: str, folder: Path, size: int) -> dict[str, float]:
    """Run a step in a new process, whose peak of memory is its own."""
    command = [sys.executable, __file__, "--step", step, str(folder), str(size)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far; without that of its parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def current_bytes() -> int:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Print the figures of each part and size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", action="append", choices=MEASURES, help="by default all")
    parser.add_argument("--sizes", type=int, nargs="+", help="shards, samples or stores")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    if arguments.step:
        step, place, size = arguments.step
        print(json.dumps(STEPS[step](Path(place), int(size))))
        return
    import torch

    from seit.training.versions import environment

    found: dict[str, Any] = {"environment": environment(torch.device("cpu"))}
    for part in arguments.part or MEASURES:
        rows = found[part] = []
        for size in arguments.sizes or SIZES[part]:
            with tempfile.TemporaryDirectory(prefix="seit-scale-") as folder:
                rows.append(MEASURES[part](Path(folder), size))
    print(json.dumps(found, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
