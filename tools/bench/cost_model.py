"""Estimate the cost of tokenizing a corpus, from a small job: hours, money and bytes, as JSON.

    uv run python tools/bench/cost_model.py --source PHOTOS --images 1e9 --cores 1024 --price 0.04

PHOTOS, a sample of the corpus in any form that `seit tokenize` takes, is tokenized into a temporary
folder; its rate in images per second and core, and its bytes per image, are extrapolated. Pass
rates measured elsewhere with --rate and --bytes-per-image.

The model is linear: actors share nothing but the storage, which must deliver
`source_bytes_per_second`. With --gpus and their --gpu-rate (of `tools/gpu_check.py`), cores only
decode, at the --decode-rate that `tools/bench/cluster.py stages` prints; the slower side counts.
Requests are those of `--plan pieces`: parts of 8 MB to read, and four writes a piece.
"""

import argparse
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from seit.ingest import TokenizeConfig, tokenize

SECONDS_PER_HOUR = 3600
READ_BYTES = 8 << 20
WRITES_OF_PIECE = 4


@dataclass(frozen=True)
class Rate:
    """Throughput of one core, and bytes per image."""

    images_per_second_and_core: float
    bytes_per_image: float
    source_bytes_per_image: float


def measure(source: str, *, tokenizer: str, codec: str) -> Rate:
    """Measure a small job on all cores, without fitting and the fixed parts of a store."""
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        config = TokenizeConfig(tokenizer=tokenizer, codec=codec)
        result = tokenize(source, Path(folder) / "store", config)
    return Rate(
        images_per_second_and_core=result.samples_per_second / cores,
        bytes_per_image=result.payload_bytes_per_sample,
        source_bytes_per_image=result.source_bytes_per_sample,
    )


def cost(
    rate: Rate, *, images: float, cores: int, price_per_core_hour: float, efficiency: float
) -> dict[str, float]:
    """Estimate hours, money and bytes of a whole corpus.

    Args:
        rate: of one core.
        images: in the corpus.
        cores: working at a time.
        price_per_core_hour: in any currency.
        efficiency: share of the cores' time spent as in the small job, 0–1.
    """
    per_second = rate.images_per_second_and_core * cores * efficiency
    hours = images / per_second / SECONDS_PER_HOUR
    return {
        "images": images,
        "cores": cores,
        "images_per_second": per_second,
        "hours": hours,
        "core_hours": hours * cores,
        "money": hours * cores * price_per_core_hour,
        "store_bytes": images * rate.bytes_per_image,
        "source_bytes": images * rate.source_bytes_per_image,
        "source_bytes_per_second": per_second * rate.source_bytes_per_image,
    }


@dataclass(frozen=True)
class Gpus:
    """GPUs that encode what the cores decode, in images per second each."""

    count: int
    images_per_second: float
    decoded_per_second_and_core: float
    price_per_hour: float


def cost_with_gpus(
    rate: Rate,
    gpus: Gpus,
    *,
    images: float,
    cores: int,
    price_per_core_hour: float,
    efficiency: float,
) -> dict[str, float | str]:
    """Estimate hours, money and bytes of a corpus that GPUs encode."""
    decoded = cores * gpus.decoded_per_second_and_core
    encoded = gpus.count * gpus.images_per_second
    pace = Rate(min(decoded, encoded) / cores, rate.bytes_per_image, rate.source_bytes_per_image)
    found = cost(
        pace,
        images=images,
        cores=cores,
        price_per_core_hour=price_per_core_hour,
        efficiency=efficiency,
    )
    return {
        **found,
        "money": found["money"] + found["hours"] * gpus.count * gpus.price_per_hour,
        "gpu_hours": found["hours"] * gpus.count,
        "limited_by": "decoding" if decoded < encoded else "encoding",
        "cores_per_gpu": gpus.images_per_second / gpus.decoded_per_second_and_core,
    }


def requests(source_bytes: float, images: float, piece_images: int) -> dict[str, float]:
    """Estimate the requests to object storage of a job in pieces."""
    pieces = images / piece_images
    return {"reads": source_bytes / READ_BYTES + pieces, "writes": WRITES_OF_PIECE * pieces}


def main() -> None:
    """Print the cost of a corpus."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", help="a sample of the corpus, measured unless rates are given")
    parser.add_argument("--tokenizer", default="patch-pca-vq")
    parser.add_argument("--codec", default="context", choices=("context", "packed"))
    parser.add_argument("--rate", type=float, help="images per second and core")
    parser.add_argument("--bytes-per-image", type=float, help="of the store")
    parser.add_argument("--source-bytes-per-image", type=float, default=0.0)
    parser.add_argument("--images", type=float, required=True)
    parser.add_argument("--cores", type=int, required=True)
    parser.add_argument("--price", type=float, default=0.0, help="of a core hour")
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--gpu-rate", type=float, help="images that one encodes per second")
    parser.add_argument("--gpu-price", type=float, default=0.0, help="of an hour of one")
    parser.add_argument("--decode-rate", type=float, help="images that a core decodes per second")
    parser.add_argument("--piece-images", type=int, default=10_000, help="of a tar")
    parser.add_argument("--efficiency", type=float, default=0.9)
    arguments = parser.parse_args()
    if arguments.source:
        rate = measure(
            arguments.source,
            tokenizer=arguments.tokenizer,
            codec=arguments.codec,
        )
    elif arguments.rate and arguments.bytes_per_image:
        rate = Rate(arguments.rate, arguments.bytes_per_image, arguments.source_bytes_per_image)
    else:
        parser.error("pass --source, or --rate and --bytes-per-image")
    settings = {
        "images": arguments.images,
        "cores": arguments.cores,
        "price_per_core_hour": arguments.price,
        "efficiency": arguments.efficiency,
    }
    if arguments.gpus:
        if not (arguments.gpu_rate and arguments.decode_rate):
            parser.error("--gpus needs --gpu-rate and --decode-rate")
        gpus = Gpus(arguments.gpus, arguments.gpu_rate, arguments.decode_rate, arguments.gpu_price)
        found = cost_with_gpus(rate, gpus, **settings)
    else:
        found = cost(rate, **settings)
    sent = requests(float(found["source_bytes"]), arguments.images, arguments.piece_images)
    result = {"model": "tokenize_cost", "tokenizer": arguments.tokenizer, **asdict(rate)}
    print(json.dumps({**result, **found, "requests": sent}, indent=2))


if __name__ == "__main__":
    main()
