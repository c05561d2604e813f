"""Compare bytes and decoding speed of token codecs on the same tokens; prints JSON.

    uv run python tools/bench/shards.py STORE --json --plot docs/shards.svg

STORE has splits `train` and `val`. The tables of `context` are fitted on `train`, and all rows are
measured on `val`. Bytes include payload, stream lengths, checksums and index; tables are reported
separately, and spread over 100,000 samples in `bytes_per_sample_at_100k`. Decoding is timed on one
thread into uint16 arrays from memory, best of several rounds that alternate between the codecs.
General compressors get all samples in one stream, which is their best case and allows no access to
a single sample.
"""

import argparse
import gzip
import json
import lzma
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import torch
from numcodecs import Zstd

from seit import open as open_store
from seit.shards import BLOCK_SAMPLES, Codec, PackedCodec
from seit.shards.context import ContextCodec
from seit.shards.context.fit import fit_tables
from seit.shards.packed import pack
from seit.stores.official import ID_LIMIT, decode_escaped, encode_escaped
from seit.stores.recode import fit_codec
from seit.training.versions import environment

AMORTIZED_OVER = 100_000
INDEX_BYTES_PER_BLOCK = 16
Tokens = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Coded:
    """Encoded tokens and their decoder."""

    num_bytes: int
    decode: Callable[[], Tokens]
    tables_bytes: int = 0
    random_access: bool = True


def ours(codec: Codec, tokens_NHW: Tokens) -> Coded:
    """Encode blocks of up to 1,024 samples, as in a store."""
    starts = range(0, len(tokens_NHW), BLOCK_SAMPLES)
    frames = [codec.encode(tokens_NHW[start : start + BLOCK_SAMPLES]) for start in starts]
    return Coded(
        num_bytes=sum(map(len, frames)) + INDEX_BYTES_PER_BLOCK * len(frames),
        decode=lambda: np.concatenate([codec.decode(frame) for frame in frames]),
        tables_bytes=len(codec.tables or b""),
    )


def official(tokens_NHW: Tokens) -> Coded:
    """Encode as naver-ai/seit: escaped bytes and offsets, one gzip file each, decoded at once."""
    shape = tokens_NHW.shape
    data, offsets = encode_escaped(tokens_NHW.reshape(len(tokens_NHW), -1))
    packed = gzip.compress(data.tobytes(), 9, mtime=0)
    index = gzip.compress(offsets.tobytes(), 9, mtime=0)

    def decode() -> Tokens:
        raw = np.frombuffer(gzip.decompress(packed), np.uint8)
        places = np.frombuffer(gzip.decompress(index), np.int64)
        return decode_escaped(raw, places, shape[1] * shape[2]).reshape(shape)

    return Coded(len(packed) + len(index), decode, random_access=False)


def general(
    compress: Callable[[bytes], bytes], decompress: Callable[[bytes], bytes], tokens_NHW: Tokens
) -> Coded:
    """Compress all ids as one stream of uint16."""
    data = compress(np.ascontiguousarray(tokens_NHW).tobytes())

    def decode() -> Tokens:
        return np.frombuffer(decompress(data), np.uint16).reshape(tokens_NHW.shape)

    return Coded(len(data), decode, random_access=False)


def plain_packed(bits: int, tokens_NHW: Tokens) -> Coded:
    """Pack at a fixed width and nothing else: the lower bound of `packed`."""
    packed = pack(tokens_NHW.reshape(len(tokens_NHW), -1), bits)
    return Coded(packed.nbytes, lambda: tokens_NHW)


def speeds(coded: dict[str, Coded], tokens_NHW: Tokens, rounds: int) -> dict[str, float]:
    """Measure samples/s of each codec, and check that all of them restore the tokens."""
    best = dict.fromkeys(coded, float("inf"))
    for _ in range(rounds + 1):
        for name, entry in coded.items():
            started = time.perf_counter()
            found = entry.decode()
            best[name] = min(best[name], time.perf_counter() - started)
            if not np.array_equal(found, tokens_NHW):
                raise SystemExit(f"{name} does not restore the tokens")
    return {name: len(tokens_NHW) / seconds for name, seconds in best.items()}


def measure(location: str, rounds: int) -> dict[str, object]:
    """Measure all rows for one store."""
    store = open_store(location)
    layout = store.card.layout
    train, val = np.asarray(store["train"].tokens), np.asarray(store["val"].tokens)
    started = time.perf_counter()
    tables = fit_tables(train, store.codebook, total_samples=AMORTIZED_OVER)
    fit_seconds = time.perf_counter() - started
    context = ContextCodec(layout, tables)
    coded = {"packed": ours(PackedCodec(layout), val), "context": ours(context, val)}
    if int(max(train.max(), val.max())) < ID_LIMIT:
        coded["official"] = official(val)
    zstd = Zstd(level=19)
    coded["zstd-19 of uint16"] = general(zstd.encode, zstd.decode, val)
    coded["xz -9e of uint16"] = general(
        lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME), lzma.decompress, val
    )
    coded["gzip -9 of uint16"] = general(
        lambda data: gzip.compress(data, 9, mtime=0), gzip.decompress, val
    )
    rates = speeds(coded, val, rounds)
    started = time.perf_counter()
    context.encode(val[:BLOCK_SAMPLES])
    encode_rate = min(len(val), BLOCK_SAMPLES) / (time.perf_counter() - started)
    fixed = plain_packed(layout.bits, val).num_bytes / len(val)
    here = fit_codec(store)
    everything = np.concatenate([train, val])
    return {
        "store": {"samples": len(everything), "measured_samples": len(val)},
        "codes": layout.num_codes,
        "grid": list(layout.grid),
        "tokenizer": store.card.tokenizer.name,
        "fixed_width_bytes": fixed,
        "context": {
            "fit_seconds": fit_seconds,
            "encode_samples_per_second": encode_rate,
            "this_store": {
                "bytes_per_sample": ours(here, everything).num_bytes / len(everything),
                "tables_bytes": len(here.tables),
            },
        },
        "rows": {
            name: {
                "bytes_per_sample": entry.num_bytes / len(val),
                "bytes_per_sample_at_100k": entry.num_bytes / len(val)
                + entry.tables_bytes / AMORTIZED_OVER,
                "tables_bytes": entry.tables_bytes,
                "decode_samples_per_second": rates[name],
                "of_fixed_width": entry.num_bytes / len(val) / fixed,
                "random_access": entry.random_access,
            }
            for name, entry in coded.items()
        },
    }


def plot(result: dict[str, Any]) -> str:
    """Draw bytes per sample of every codec as SVG bars, one group per store."""
    bars, y = [], 24
    groups = list(result["stores"].values())
    most = max(
        row["bytes_per_sample_at_100k"] for group in groups for row in group["rows"].values()
    )
    for group in groups:
        title = f"K = {group['codes']}, {group['tokenizer']}, bytes per sample"
        bars.append(f'<text x="0" y="{y}" font-weight="600">{title}</text>')
        rows = sorted(group["rows"].items(), key=lambda row: row[1]["bytes_per_sample_at_100k"])
        for name, row in rows:
            y += 26
            width = 420 * row["bytes_per_sample_at_100k"] / most
            color = "#2563eb" if name in ("packed", "context") else "#9ca3af"
            rate = row["decode_samples_per_second"] / 1000
            note = f"{row['bytes_per_sample_at_100k']:.0f} B, {rate:,.0f} k samples/s"
            bars.append(
                f'<text x="140" y="{y}" text-anchor="end">{name}</text>'
                f'<rect x="150" y="{y - 13}" width="{width:.0f}" height="17" fill="{color}"/>'
                f'<text x="{158 + width:.0f}" y="{y}">{note}</text>'
            )
        y += 44
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="780" height="{y - 20}" '
        'font-family="system-ui, sans-serif" font-size="13">'
        '<rect width="100%" height="100%" fill="white"/><g transform="translate(12 0)">'
    )
    return head + "".join(bars) + "</g></svg>\n"


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("stores", nargs="+", metavar="STORE")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--plot", help="write an SVG here")
    parser.add_argument("--json", action="store_true", help="ignored; output is always JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    stores = {name: measure(name, arguments.rounds) for name in arguments.stores}
    first = next(iter(stores.values()))
    result = {
        "environment": environment(torch.device("cpu")),
        "rows": first["rows"],
        "stores": stores,
    }
    if arguments.plot:
        Path(arguments.plot).write_text(plot(result))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
