"""Whole jobs: tokenizing, the training loop, pages of `seit view`."""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from guard_bench.case import Case, Work
from loop import measure
from PIL import Image
from view import CONNECTIONS, PAGE, serve

import seit
from seit.demo import write_corpus
from seit.shards import open_store
from train import recipe_config

PICTURES, SIZE, TOKENIZED = 640, 256, 48
STEPS, BLOCK, BATCH = 48, 3, 32


def rendered(work: Path, count: int) -> Path:
    """Return a folder of rendered JPEG files of ten classes."""
    folder = work / f"pictures-{count}"
    if not folder.exists():
        write_corpus(folder, num_train=count, num_val=10, size=SIZE)
    return folder


def rendered_store(work: Path) -> Path:
    """Return a packed store of patch tokens of rendered pictures."""
    path = work / "rendered"
    if not path.exists():
        seit.tokenize(rendered(work, PICTURES), out=path, tokenizer="patch-pca-vq", size=SIZE)
    return path


def _decode(files: list[Path]) -> list[Image.Image]:
    return [Image.open(file).convert("RGB") for file in files]


def _tokenized(work: Path, tokenizer: str, rounds: int) -> Case:
    folder = rendered(work, TOKENIZED)
    files = sorted(folder.rglob("*.jpg"))
    out = work / f"tokenized-{tokenizer}"

    def tokenize() -> None:
        seit.tokenize(folder, out=out, tokenizer=tokenizer, overwrite=True)

    return Case(Work(tokenize), Work(lambda: [_decode(files) for _ in range(20)]), rounds)


def tokenize_conv(work: Path) -> Case:
    """`seit tokenize` of 58 pictures by conv-vq-f8-1024, against Pillow decoding them 20 times."""
    return _tokenized(work, "conv-vq-f8-1024", 3)


def tokenize_patch(work: Path) -> Case:
    """The same by patch-pca-vq, fitted on the pictures."""
    return _tokenized(work, "patch-pca-vq", 3)


@dataclass
class Loop:
    """Steps of the training loop, against bare steps of the same network."""

    store: Path
    loops: list[float] = field(default_factory=list)
    bares: list[float] = field(default_factory=list)

    def measure(self) -> float:
        """Return the least CPU time of bare steps over that of the loop, of all calls."""
        config = recipe_config("small-cpu", steps=STEPS, batch_size=BATCH)
        clock = measure(config, open_store(self.store), block=BLOCK)
        self.loops += clock.loops
        self.bares += clock.bares
        return min(self.bares) / min(self.loops)

    def close(self) -> None:
        """Do nothing."""


def train_loop(work: Path) -> Loop:
    """Steps of `seit train`, data and averages included, against bare steps."""
    return Loop(rendered_store(work))


def view_page(work: Path) -> Case:
    """A page of 60 pictures of `seit view`, against Pillow making thumbnails of as many files."""
    files = sorted(rendered(work, PICTURES).rglob("*.jpg"))[:PAGE]
    server, pool = serve(rendered_store(work)), ThreadPoolExecutor(CONNECTIONS)
    starts = cycle(range(0, PICTURES - PAGE, PAGE))
    ticks = os.sysconf("SC_CLK_TCK")

    def clock() -> float:
        fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / ticks

    def thumbnails() -> None:
        for picture in _decode(files):
            picture.thumbnail((128, 128))
            picture.save(io.BytesIO(), "JPEG", quality=85)

    def close() -> None:
        pool.shutdown()
        server.process.kill()
        server.process.wait()

    return Case(Work(lambda: server.page(next(starts), pool), clock), Work(thumbnails), 9, close)
