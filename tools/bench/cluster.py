"""Measure jobs in pieces: the driver at 10⁵ tars, each stage, a cluster of nodes, and the fit.

    uv run python tools/bench/cluster.py driver --tars 100000
    uv run python tools/bench/cluster.py stages SRC
    uv run python tools/bench/cluster.py cluster SRC --nodes 2 --cpus 1 --encoders 0
    uv run python tools/bench/cluster.py fit STORE

Each prints JSON. ``driver`` is simulated: the tars are empty files of the apparent size of 10,000
photos each, and a stub takes the place of the workers, which answers with records of as many
samples, 1,000 classes and real sizes of blocks. Listing, records, sealing and card are the real
ones. ``fit`` compares tables fitted to parts of a store with tables fitted to all of it.
"""

import argparse
import json
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import seit
from seit.ingest import TokenizeConfig, resolve_tokenizer, tokenize
from seit.ingest.batches import encode_samples, samples_of
from seit.ingest.encoder import BatchEncoder
from seit.ingest.fit import make_reader
from seit.ingest.pieces import job as pieces_job
from seit.ingest.pieces.find import find_pieces
from seit.ingest.pieces.maker import PieceTask
from seit.ingest.pieces.piece import Findings, PieceRecord, PieceShard
from seit.ingest.pieces.place import JobPlace, Ready
from seit.ingest.sources import Instance
from seit.processor import cpu_kind
from seit.shards import Coder, ContextTables, PackedCodec, ShardRecord, TokenLayout, fit_tables
from seit.tokenizers import PRESETS, load_tokenizer

TAR_SAMPLES, SHARD_SAMPLES, BLOCK_SAMPLES = 10_000, 8192, 1024
PHOTO_BYTES = 110_000
NUM_CLASSES = 1000


def measure_driver(args: argparse.Namespace) -> dict[str, Any]:
    """Run the driver of a job of very many tars, with a stub for its workers."""
    with tempfile.TemporaryDirectory(prefix="seit-") as folder:
        source, store = Path(folder) / "tars", Path(folder) / "store"
        source.mkdir()
        for number in range(args.tars):
            with (source / f"train-{number:06d}.tar").open("wb") as file:
                file.truncate(TAR_SAMPLES * PHOTO_BYTES)
        config = TokenizeConfig(tokenizer="patch-pca-vq", plan="pieces")
        before = peak_bytes()
        with ExitStack() as stack:
            stack.callback(setattr, pieces_job, "choose_engine", pieces_job.choose_engine)
            stack.callback(setattr, pieces_job, "fit_job", pieces_job.fit_job)
            stack.callback(setattr, JobPlace, "sizes_of", JobPlace.sizes_of)
            pieces_job.choose_engine = lambda _: stub_engine
            pieces_job.fit_job = stub_fit
            JobPlace.sizes_of = lambda _, shards: ((shard, shard.bytes) for shard in shards)
            wall, cpu = time.perf_counter(), time.process_time()
            result = tokenize(source, store, config)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        after = peak_bytes()
        opened = seit.open(store)
        return {
            "simulated": "contents of tars, workers, files of shards",
            "tars": args.tars,
            "samples": result.samples,
            "shards": len(opened["train"].shards),
            "card_bytes": (store / "store.json").stat().st_size,
            "driver_cpu_seconds": round(cpu, 1),
            "driver_wall_seconds": round(wall, 1),
            "peak_bytes": after,
            "peak_bytes_before": before,
        }


def stub_fit(*_: Any) -> Any:
    """Return a tokenizer of random patches, in place of one fitted to the tars."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (32, 256, 256, 3), dtype=torch.uint8, generator=generator)
    preset = PRESETS["patch-pca-vq"]
    tokenizer = preset.fit(images, num_codes=1024, levels=None, seed=0)
    layout = TokenLayout(grid=tokenizer.grid, num_codes=tokenizer.num_codes)
    return pieces_job_fit(tokenizer, PackedCodec(layout))


def pieces_job_fit(tokenizer: Any, codec: Any) -> Any:
    """Return the outcome of a fit."""
    from seit.ingest.pieces.sample import Fit

    return Fit(tokenizer, codec, Ready(codec.name, {}))


def stub_engine(_work: Any, tasks: Sequence[PieceTask]) -> Iterator[tuple[int, PieceRecord]]:
    """Yield a record of 10,000 samples for every tar."""
    draw = np.random.default_rng(0)
    for number, task in enumerate(tasks):
        shards = []
        for part, count in enumerate((SHARD_SAMPLES, TAR_SAMPLES - SHARD_SAMPLES)):
            blocks = -(-count // BLOCK_SAMPLES)
            sizes = draw.integers(1_400_000, 1_500_000, (blocks, 4))
            sizes[:, 1:] //= 100
            found, counts = np.unique(draw.integers(0, NUM_CLASSES, count), return_counts=True)
            record = ShardRecord(
                f"train/{task.number * 1000 + part:05d}.tar",
                int(sizes.sum()) + 10_240,
                f"{number:064x}",
                count,
            )
            shards.append(
                PieceShard(
                    "train",
                    record,
                    tuple((int(a), int(b), int(c), 0) for a, b, c, _ in sizes),
                    dict(zip(found.tolist(), counts.tolist(), strict=True)),
                )
            )
        yield (
            number,
            PieceRecord(TAR_SAMPLES, tuple(shards), source_bytes=TAR_SAMPLES * PHOTO_BYTES),
        )


def measure_stages(args: argparse.Namespace) -> dict[str, Any]:
    """Measure reading, decoding, encoding and coding apart, each on one core."""
    config = TokenizeConfig(tokenizer=args.tokenizer, plan="pieces", workers=1)
    config, given = resolve_tokenizer(config)
    corpus = find_pieces(args.source, config)
    piece = corpus.pieces[0]
    read_seconds, instances = timed(
        lambda: [
            Instance(draft.key, "train", -1, draft.location, draft.metadata, draft.num_bytes)
            for draft in corpus.reader.read(piece, Findings())
        ]
    )
    instances = instances[: args.photos]
    with make_reader(config) as reader:
        decode_seconds, decoded = timed(lambda: list(reader.read(instances)))
    good = [entry for entry in decoded if entry.samples]
    tokenizer = given or load_tokenizer(args.tokenizer)
    with BatchEncoder(tokenizer, workers=1) as encoder:
        encode_seconds, parts = timed(
            lambda: list(encode_samples(samples_of(good), tokenizer, encoder))
        )
    ids = np.concatenate([ids for _, ids in parts])
    layout = TokenLayout(grid=tokenizer.grid, num_codes=tokenizer.num_codes)
    tables = fit_tables(ids, tokenizer.codebook.numpy(), total_samples=len(ids))
    flat = ids.reshape(len(ids), -1)
    Coder(tables).encode(flat[:8], layout.grid)
    code_seconds, _ = timed(lambda: Coder(tables).encode(flat, layout.grid))
    count = len(ids)
    rates = {
        "read": len(instances) / read_seconds * piece.num_bytes / max(1, total_bytes(instances)),
        "decode": count / decode_seconds,
        "encode": count / encode_seconds,
        "code": count / code_seconds,
    }
    together = 1 / sum(1 / rates[name] for name in ("decode", "encode", "code"))
    return {
        "photos": count,
        "tokenizer": args.tokenizer,
        "photos_per_core_second": {name: round(rate, 1) for name, rate in rates.items()},
        "photos_per_core_second_together": round(together, 1),
        "cores_that_decode_per_encoder": round(rates["encode"] / rates["decode"], 2),
    }


def total_bytes(instances: Sequence[Instance]) -> int:
    """Return the bytes of the files of instances."""
    return sum(instance.num_bytes for instance in instances)


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU seconds of an action on all threads, and its result."""
    before = time.process_time()
    result = action()
    return time.process_time() - before, result


def measure_cluster(args: argparse.Namespace) -> dict[str, Any]:
    """Run a job on a cluster of several nodes of this machine, and here."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    head = {"num_cpus": args.encoders, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(args.nodes):
        cluster.add_node(num_cpus=args.cpus)
    config = TokenizeConfig(tokenizer=args.tokenizer, plan="pieces", fit_samples=args.fit_samples)
    with tempfile.TemporaryDirectory(prefix="seit-") as folder:
        started = time.perf_counter()
        there = replace(
            config,
            engine="ray",
            ray_address=cluster.address,
            workers=args.nodes * args.cpus,
            ray_encoders=args.encoders,
        )
        waits = record_waits()
        result = tokenize(args.source, Path(folder) / "there", there)
        seconds = time.perf_counter() - started
        ray.shutdown()
        cluster.shutdown()
        here = tokenize(args.source, Path(folder) / "here", replace(config, workers=1))
        same = files(Path(folder) / "there") == files(Path(folder) / "here")
    return {
        "nodes": args.nodes,
        "cpus_per_node": args.cpus,
        "encoders": args.encoders,
        "photos": result.samples,
        "photos_per_second": round(result.samples_per_second, 1),
        "photos_per_second_one_worker_here": round(here.samples_per_second, 1),
        "seconds_with_start_and_fit": round(seconds, 1),
        "waits": waits[0],
        "same_bytes": same,
    }


def record_waits() -> list[dict[str, float]]:
    """Return a list that receives the shares of the stages of each job."""
    found: list[dict[str, float]] = []
    say = pieces_job.say_waits

    def keep(seconds: Mapping[str, float]) -> str:
        total = sum(seconds.values()) or 1.0
        found.append({name: round(spent / total, 3) for name, spent in seconds.items()})
        return say(seconds)

    pieces_job.say_waits = keep
    return found


def files(folder: Path) -> dict[str, bytes]:
    """Return name → content of all files of a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def measure_fit(args: argparse.Namespace) -> dict[str, Any]:
    """Compare tables fitted to parts of a store with tables fitted to all of it."""
    store = seit.open(args.store)
    tokens_NHW = np.concatenate(
        [split.read_tokens(np.arange(len(split))) for split in store.values()]
    )
    order = np.array(range(len(tokens_NHW)))
    random.Random(0).shuffle(order)
    tokens_NHW = tokens_NHW[order]
    total = len(tokens_NHW)
    sizes = [total, *(count for count in args.samples if count < total)]
    rows = [{"samples": count, **_fit(tokens_NHW, store.codebook, count)} for count in sizes]
    for row in rows:
        row["more_bytes"] = f"{row['bytes_per_sample'] / rows[0]['bytes_per_sample'] - 1:+.2%}"
    return {"store_samples": total, "fits": rows}


def _fit(tokens_NHW: Any, codebook: Any, count: int) -> dict[str, Any]:
    total = len(tokens_NHW)
    started = time.process_time()
    tables: ContextTables = fit_tables(tokens_NHW[:count], codebook, total_samples=total)
    seconds = time.process_time() - started
    words, _ = Coder(tables).encode(tokens_NHW.reshape(total, -1), tokens_NHW.shape[1:])
    bytes_per_sample = (2 * len(words) + len(tables.to_bytes())) / total
    return {"bytes_per_sample": round(bytes_per_sample, 2), "fit_cpu_seconds": round(seconds, 1)}


def peak_bytes() -> int:
    """Return the peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Run one measurement and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    driver = parts.add_parser("driver")
    driver.add_argument("--tars", type=int, default=100_000)
    stages = parts.add_parser("stages")
    stages.add_argument("source")
    stages.add_argument("--photos", type=int, default=256)
    cluster = parts.add_parser("cluster")
    cluster.add_argument("source")
    cluster.add_argument("--nodes", type=int, default=2)
    cluster.add_argument("--cpus", type=int, default=1)
    cluster.add_argument("--encoders", type=int, default=0)
    cluster.add_argument("--fit-samples", type=int, default=512)
    for part in (stages, cluster):
        part.add_argument("--tokenizer", default="conv-vq-f8-1024")
    fit = parts.add_parser("fit")
    fit.add_argument("store")
    fit.add_argument("--samples", type=int, nargs="+", default=[8192, 4096, 2048, 1024])
    args = parser.parse_args()
    measure = {
        "driver": measure_driver,
        "stages": measure_stages,
        "cluster": measure_cluster,
        "fit": measure_fit,
    }[args.part]
    machine = {"processor": cpu_kind(), "cores": os.cpu_count(), "torch": torch.__version__}
    print(json.dumps({"part": args.part, **measure(args), **machine}))


if __name__ == "__main__":
    main()
