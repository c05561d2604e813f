"""Measure `seit view` on a store of many samples, made of copies of a real one; prints JSON.

    uv run python tools/bench/view.py STORE --work WORK [--samples 1000000] --json

WORK keeps the copies: the tokens and labels of STORE repeated under new keys. A server is started
as a user would start it, and asked over HTTP as a browser would ask, six connections at a time.
Times are wall-clock seconds on the machine as it is; `load` says how busy it was. Memory is the
resident memory of the server, read after every step; `peak` is its highest value.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import torch

from seit import open as open_store
from seit.shards import (
    CARD_NAME,
    Block,
    Codec,
    ShardWriter,
    Store,
    TokenLayout,
    write_index,
    write_listed,
)
from seit.training.versions import environment

PAGE = 60
CONNECTIONS = 6
"""Connections of a browser to one host."""
BLOCKS_PER_SHARD = 64
SCROLLED_PAST = 40
TIMEOUT_SECONDS = 600


class OnceCodec:
    """Codec that encodes the tokens of each block once, however often it is written."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._encoded: dict[int, bytes] = {}

    @property
    def layout(self) -> TokenLayout:
        """Layout of the tokens of a sample."""
        return self._codec.layout

    def encode(self, tokens: npt.NDArray[np.unsignedinteger]) -> bytes:
        """Encode ids (N, H, W) that are kept for as long as this codec."""
        if id(tokens) not in self._encoded:
            self._encoded[id(tokens)] = self._codec.encode(tokens)
        return self._encoded[id(tokens)]


def make_copies(source: Store, path: Path, samples: int) -> None:
    """Write a store of ``samples`` samples: those of the first split, repeated under new keys."""
    split = source[next(iter(source))]
    size = source.card.block_samples
    rows = np.arange(max(size, len(split))) % len(split)  # blocks of a shard are full
    tokens, labels = split.tokens[:][rows], split.labels[rows]
    parts = [
        (np.ascontiguousarray(tokens[start : start + size]), labels[start : start + size])
        for start in range(0, len(tokens) - size + 1, size)
    ]
    codec = OnceCodec(source.codec)
    records, written = [], 0
    while written < samples:
        with ShardWriter(path, split="train", index=len(records), codec=codec) as writer:  # type: ignore[arg-type]
            for _ in range(BLOCKS_PER_SHARD):
                ids, own = parts[written // size % len(parts)]
                keys = [
                    f"copy-{written // len(tokens):04}/{written + n:08}.jpg"
                    for n in range(len(ids))
                ]
                writer.write(Block(ids, own, keys))
                written += len(ids)
                if written >= samples:
                    break
        records.append(writer.record)
    contents = {record.file: source.read_listed(record.file) for record in source.card.files}
    kept = {name: data for name, data in contents.items() if name.endswith(".safetensors")}
    files = (*write_listed(path, kept), write_index(path, "train", records))
    replace(source.card, splits={"train": tuple(records)}, files=files).write(path)


@dataclass
class Server:
    """Running `seit view`, and a client of it."""

    process: "subprocess.Popen[str]"
    start_seconds: float
    memory: dict[str, int] = field(default_factory=dict)

    @cached_property
    def place(self) -> str:
        """Host and port."""
        assert self.process.stdout is not None
        lines = iter(self.process.stdout.readline, "")
        text = ""
        for line in lines:
            text += line
            if line.startswith("}"):
                break
        return urlsplit(json.loads(text)["url"]).netloc

    def get(self, address: str) -> bytes:
        """Return what an address answers; follow one redirection."""
        connection = HTTPConnection(self.place, timeout=TIMEOUT_SECONDS)
        connection.request("GET", address)
        answer = connection.getresponse()
        body, status, place = answer.read(), answer.status, answer.headers.get("Location")
        connection.close()
        if status == 303 and place is not None:
            return self.get(place)
        if status != 200:
            raise SystemExit(f"{address} answers {status}: {body[:200]!r}")
        return body

    def timed(self, address: str, name: str) -> float:
        """Return the seconds that an address takes, and note the memory after it."""
        started = time.perf_counter()
        self.get(address)
        seconds = time.perf_counter() - started
        self.memory[name] = self.resident("VmRSS")
        return seconds

    def page(self, start: int, pool: ThreadPoolExecutor) -> float:
        """Return the seconds until a page of samples and all its pictures are there."""
        started = time.perf_counter()
        self.get(f"/cells?split=train&start={start}")
        list(pool.map(self.get, [f"/picture/train/{start + n}?v=0" for n in range(PAGE)]))
        return time.perf_counter() - started

    def resident(self, name: str) -> int:
        """Return the server's memory in bytes: VmRSS now, or VmHWM at its highest."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def serve(path: Path) -> Server:
    """Start `seit view` and wait until it prints its address."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "seit", "view", str(path), "--no-open", "--port=0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    server = Server(process, 0.0)
    assert server.place
    server.start_seconds = time.perf_counter() - started
    return server


def measure(server: Server, samples: int, rounds: int) -> dict[str, Any]:
    """Measure one server from its first page on."""
    random.seed(0)
    memory_at_start = server.resident("VmRSS")
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        first_seconds = server.timed("/", "first page")
        first_pictures = server.page(0, pool)
        starts = [random.randrange(samples // PAGE - 1) * PAGE for _ in range(rounds)]
        pages = sorted(server.page(start, pool) for start in starts)
        for start in range(0, SCROLLED_PAST * PAGE, PAGE):
            server.get(f"/cells?split=train&start={start + samples // 2}")
        after_scrolling = server.page((samples // 3) // PAGE * PAGE, pool)
        server.memory["pages"] = server.resident("VmRSS")
        searches = dict(timed_searches(server, samples))
    return {
        "start_seconds": server.start_seconds,
        "first_page_seconds": first_seconds,
        "first_pictures_seconds": first_pictures,
        "page_seconds": {"p50": statistics.median(pages), "max": pages[-1], "n": len(pages)},
        "page_after_scrolling_seconds": after_scrolling,
        "scrolled_past_pages": SCROLLED_PAST,
        "seconds": searches,
        "memory_bytes": {"start": memory_at_start, **server.memory},
        "peak_memory_bytes": server.resident("VmHWM"),
    }


def timed_searches(server: Server, samples: int) -> Iterator[tuple[str, float]]:
    """Yield the name and seconds of pages that need a column of all samples, and again."""
    addresses = {
        "classes": "/classes?split=train",
        "search": f"/browse?split=train&q={samples // 2:08}",
        "one class": "/browse?split=train&class=1",
        "sort by class": "/browse?split=train&sort=class",
        "sort by key": "/browse?split=train&sort=key",
        "sort by bits": "/browse?split=train&sort=bits&down=1",
        "codebook": "/codebook",
        "neighbors": "/neighbors/train/7",
    }
    for name, address in addresses.items():
        yield name, server.timed(address, name)
        yield f"{name}, again", server.timed(address, name)


def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    source = open_store(arguments.store)
    path = arguments.work / f"{source.card.seal[:12]}-{arguments.samples}"
    if not (path / CARD_NAME).exists():
        make_copies(source, path, arguments.samples)
    card = open_store(path).card
    server = serve(path)
    try:
        found = measure(server, card.samples, arguments.rounds)
    finally:
        server.process.kill()
        server.process.wait()
    result = {
        "samples": card.samples,
        "store_bytes": open_store(path).num_bytes,
        "tokenizer": card.tokenizer.name,
        **found,
        "load": os.getloadavg()[0],
        "cores": len(os.sched_getaffinity(0)),
        "environment": environment(torch.device("cpu")),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
