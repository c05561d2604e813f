"""Tokenize a folder of photos, train from tokens and from pixels; prints JSON.

    uv run python tools/bench/job.py PHOTOS OUT --steps 3000 --json

PHOTOS is a class-per-folder tree with train/ and val/. OUT keeps the store and both runs, so a
second call only reports. Reading, decoding and encoding are also timed separately, to show what
limits tokenizing.
"""

import argparse
import json
import os
import platform
import time
from dataclasses import asdict, replace
from pathlib import Path

import PIL
import torch

from seit import open as open_store
from seit.config import build, read_yaml
from seit.ingest import TokenizeConfig, tokenize
from seit.ingest.inputs.pixels import PixelReader
from seit.ingest.shard import ENCODE_BATCH
from seit.ingest.sources import list_corpus, read_bytes
from seit.recipes import find_recipe
from seit.tokenizers import measure_quality
from seit.training import TrainConfig, train
from seit.training.versions import environment

RATE_IMAGES = 1024


def stage_rates(photos: Path, store_path: Path) -> dict[str, float]:
    """Measure images/s of each stage alone, over the first 1,024 images of the corpus."""
    instances = list_corpus(photos).instances[:RATE_IMAGES]
    tokenizer = open_store(store_path).load_tokenizer()
    rates = {}
    started = time.perf_counter()
    for instance in instances:
        read_bytes(instance)
    rates["read"] = len(instances) / (time.perf_counter() - started)
    images = []
    for workers in (1, os.cpu_count() or 1):
        with PixelReader(size=tokenizer.image_size, max_pixels=1 << 28, workers=workers) as reader:
            started = time.perf_counter()
            images = [entry.pixels for entry in reader.read(instances)]
            rates[f"decode_{workers}_threads"] = len(images) / (time.perf_counter() - started)
    batches = torch.stack([torch.from_numpy(array) for array in images]).split(ENCODE_BATCH)
    started = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            tokenizer.encode(batch)
    rates["encode"] = len(images) / (time.perf_counter() - started)
    return rates


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", default="small-cpu")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--lossless", type=Path, help="folder of PNGs for a PSNR row")
    parser.add_argument("--json", action="store_true", help="ignored; output is always JSON")
    arguments = parser.parse_args()
    result = tokenize(arguments.photos, arguments.out / "store")
    rates = stage_rates(arguments.photos, arguments.out / "store")
    again = tokenize(arguments.photos, arguments.out / "timed", TokenizeConfig(overwrite=True))
    recipe = read_yaml(find_recipe(arguments.recipe).path)
    runs = []
    for seed in range(arguments.seeds):
        for name, pixels in (("tokens", None), ("pixels", str(arguments.photos))):
            config = build(TrainConfig, recipe, origin=arguments.recipe)
            config = replace(
                config,
                data=replace(config.data, pixels=pixels),
                run=replace(config.run, seed=seed),
                schedule=replace(config.schedule, steps=arguments.steps),
            )
            run = arguments.out / f"{name}-{arguments.steps}-{seed}"
            outcome = train(config, arguments.out / "store", out=run, resume=True)
            runs.append({"input": name, "seed": seed, **asdict(outcome)})
    mean = {
        name: sum(run["top1"] for run in runs if run["input"] == name) / arguments.seeds
        for name in ("tokens", "pixels")
    }
    report = {
        "benchmark": "main_job",
        "photos": result.samples,
        "recipe": arguments.recipe,
        "steps": arguments.steps,
        "seeds": arguments.seeds,
        "bytes_per_sample": result.bytes_per_sample,
        "source_bytes_per_sample": result.source_bytes_per_sample,
        "tokenizer": result.quality,
        "tokenize_samples_per_second": again.samples_per_second,
        "stage_samples_per_second": rates,
        "top1_tokens": mean["tokens"],
        "top1_pixels": mean["pixels"],
        "top1_ratio": mean["tokens"] / mean["pixels"],
        "runs": runs,
        "environment": {
            **environment(torch.device("cpu")),
            "pillow": PIL.__version__,
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
        },
    }
    if arguments.lossless:
        report["lossless"] = lossless_quality(arguments.lossless, arguments.out / "store")
    print(json.dumps(report, indent=2))


def lossless_quality(folder: Path, store_path: Path) -> dict[str, float]:
    """Measure the store's tokenizer on the center squares of lossless pictures."""
    tokenizer = open_store(store_path).load_tokenizer()
    with PixelReader(size=tokenizer.image_size, max_pixels=1 << 28) as reader:
        entries = list(reader.read(list_corpus(folder).instances))
    pixels = [torch.from_numpy(entry.pixels) for entry in entries if entry.pixels is not None]
    return asdict(measure_quality(tokenizer, torch.stack(pixels)))


if __name__ == "__main__":
    main()
