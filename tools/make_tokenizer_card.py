r"""Add a trained tokenizer to `tokenizers/`, with a card of its training and quality.

    uv run python tools/make_tokenizer_card.py TRAINING NAME --summary TEXT --license TEXT \
        --data TEXT … --sort-on PHOTOS --tiles kodak=KODAK --squares imagenette=PHOTOS

TRAINING is the folder of a `seit tokenizer train`. --sort-on numbers the codes by their frequency
on these photos; the file of a training is already in such an order. Images of --tiles are cut at
their own resolution, those of --squares are resized and cropped. An audio tokenizer takes --windows
CORPUS=CLIPS instead of both.
"""

import argparse
import platform
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from seit.config import read_yaml
from seit.files import write_atomically
from seit.ingest.fit import measure_on_corpus
from seit.ingest.sources import list_corpus
from seit.recipes import data_folder
from seit.tokenizer_training.evaluate import measure_instances, sample_pictures
from seit.tokenizers import ImageTokenizer, load_tokenizer, save_tokenizer
from seit.tokenizers.learned.base import LearnedTokenizer
from seit.tokenizers.learned.conv import ConvTokenizer
from seit.tokenizers.shipped import find_shipped, list_shipped
from seit.training import CONFIG_NAME, Run

SORT_IMAGES = 1024
MEASURED_IMAGES = 512
TIMED_IMAGES = 32
TIMED_ROUNDS = 8
PROTOCOLS = {
    "tiles": "tiles without overlap at native resolution",
    "squares": "shorter side resized, center cropped",
    "windows": "windows evenly spread; PSNR of log-mel levels over a range of 100 dB",
}


def read_training(folder: Path) -> dict[str, Any]:
    """Return the settings of a training, and the name of the tokenizer it started from."""
    run = Run.open(folder)
    origin = find_shipped(run.info.get("init_from") or "")
    settings = read_yaml(run.path / CONFIG_NAME)
    return {**settings, **({} if origin is None else {"init_from": origin.name})}


def measure_on(tokenizer: LearnedTokenizer, folder: str, protocol: str) -> dict[str, Any]:
    """Measure a tokenizer on the val split of a folder, if it has one."""
    if isinstance(tokenizer, ConvTokenizer):
        measured = measure_pictures(tokenizer, folder, protocol)
    else:
        measured = asdict(measure_on_corpus(tokenizer, folder, images=MEASURED_IMAGES)[0])
    rounded = {
        key: round(value, 4) if isinstance(value, float) else value
        for key, value in measured.items()
    }
    return {"protocol": PROTOCOLS[protocol], **rounded}


def measure_pictures(tokenizer: ConvTokenizer, folder: str, protocol: str) -> dict[str, Any]:
    """Return the measurements of an image tokenizer, without its speed."""
    corpus = list_corpus(folder, val_fraction=0.0)
    instances = corpus.by_split().get("val") or corpus.instances
    measured = asdict(
        measure_instances(tokenizer, instances, count=MEASURED_IMAGES, tile=protocol == "tiles")
    )
    del measured["images_per_second"]
    return measured


def processor() -> str:
    """Return the name of this machine's processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def speed(tokenizer: LearnedTokenizer) -> dict[str, Any]:
    """Return images or windows encoded per second by one thread, best of several rounds."""
    torch.set_num_threads(1)
    shape = (TIMED_IMAGES, *tokenizer.inputs.shape)
    generator = torch.Generator().manual_seed(0)
    if isinstance(tokenizer, ImageTokenizer):
        what, inputs = "images", torch.randint(0, 256, shape, generator=generator).to(torch.uint8)
    else:
        what, inputs = "windows", 0.1 * torch.randn(shape, generator=generator)
    best = 0.0
    for _ in range(TIMED_ROUNDS):
        started = time.perf_counter()
        tokenizer.encode(inputs)
        best = max(best, TIMED_IMAGES / (time.perf_counter() - started))
    return {f"{what}_per_second": round(best, 1), "threads": 1, "processor": processor()}


def input_fields(tokenizer: LearnedTokenizer) -> dict[str, Any]:
    """Return the card's description of inputs."""
    if isinstance(tokenizer, ImageTokenizer):
        return {"image_size": tokenizer.image_size}
    return asdict(tokenizer.inputs)


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """Parse NAME=DIR … into a mapping."""
    return dict(text.split("=", 1) for text in texts)


def main() -> None:
    """Write NAME.safetensors and NAME.yaml."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("training", type=Path)
    parser.add_argument("name")
    parser.add_argument("--summary", required=True, help="one line, without codes and grid")
    parser.add_argument("--license", required=True, help="of the weights")
    parser.add_argument("--data", nargs="+", required=True, help="the training data")
    parser.add_argument("--sort-on")
    parser.add_argument("--tiles", nargs="*", default=[], metavar="NAME=DIR")
    parser.add_argument("--squares", nargs="*", default=[], metavar="NAME=DIR")
    parser.add_argument("--windows", nargs="*", default=[], metavar="NAME=DIR")
    parser.add_argument("--out", type=Path, default=data_folder("tokenizers"))
    options = parser.parse_args()

    settings = read_training(options.training)
    tokenizer = load_tokenizer(options.training / "tokenizer.safetensors")
    assert isinstance(tokenizer, LearnedTokenizer), "the training made another kind of tokenizer"
    of_images = isinstance(tokenizer, ConvTokenizer)
    if of_images == bool(options.windows):
        parser.error("pass --tiles and --squares for images, --windows for audio")
    if options.sort_on:
        assert isinstance(tokenizer, ConvTokenizer), (
            "audio tokenizers are already in order: remove --sort-on"
        )
        instances = list_corpus(options.sort_on).by_split()["train"]
        size = tokenizer.image_size
        tokenizer = tokenizer.sorted_by_use(
            sample_pictures(instances, size=size, count=SORT_IMAGES)
        )
    weights = options.out / f"{options.name}.safetensors"
    save_tokenizer(tokenizer, weights)
    card = {
        "summary": options.summary,
        "kind": tokenizer.name,
        "fingerprint": tokenizer.fingerprint,
        "licence": options.license,
        **input_fields(tokenizer),
        "grid": list(tokenizer.grid),
        "levels": tokenizer.levels,
        "codes": tokenizer.num_codes,
        "codebook_dim": tokenizer.codebook_dim,
        "bytes": weights.stat().st_size,
        "training": {"data": options.data, **settings},
        "quality": {
            name: measure_on(tokenizer, folder, protocol)
            for protocol in PROTOCOLS
            for name, folder in pairs(getattr(options, protocol)).items()
        },
        "speed": speed(tokenizer),
    }
    text = yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=100)
    write_atomically(weights.with_suffix(".yaml"), text.encode())
    if options.out == data_folder("tokenizers"):
        print(list_shipped()[options.name].summary)


if __name__ == "__main__":
    main()
