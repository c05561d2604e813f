"""Time the Triton kernels on a CUDA device; prints one JSON object for each.

    uv run python tools/gpu/kernels.py

Unpacking is compared with a plain copy of as many bytes and with torch; context decoding with the
CPU decoder, for a batch and for the blocks of a split; the fused augmentation with a copy and with
torch, and its plan and id edits are timed separately. Figures are medians over the repeats of one
run.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from seit.augment import AugmentConfig, SampleRandom, TokenAugment
from seit.augment.kernels.edit import edit_triton
from seit.augment.kernels.embed import fused_embed
from seit.augment.kernels.fused import FusedAugment
from seit.augment.kernels.plan import draw_plan, draw_plan_triton
from seit.augment.kernels.tokens import TokenSource
from seit.devices import triton_serves
from seit.lookahead import map_ahead
from seit.shards import TokenLayout
from seit.shards.context import ContextCodec
from seit.shards.context.coder import Coder
from seit.shards.context.fit import fit_tables
from seit.shards.packed import sample_bytes, token_bits
from seit.stream import unpack
from seit.stream.device_decoder import DeviceContextCodec
from seit.stream.kernels import (
    ContextDecoder,
    DeviceTables,
    decode_context_triton,
    unpack_triton,
)

GRID = (32, 32)
LENGTH = GRID[0] * GRID[1]
RESIDENT_SAMPLES = 1 << 19
UNPACK_BATCHES = (1024, 65536)
CONTEXT_BATCHES = (1024, 8192, 65536)
CODED_SAMPLES = 2048
SPLIT_BLOCKS, BLOCK_SAMPLES = 64, 1024
FUSED_BATCHES = (256, 1024, 4096)
FUSED_CODES, FUSED_CHANNELS = 391, 32
FUSED_RESIDENT_SAMPLES = 1 << 17
RECIPES = {
    "defaults": {},
    "imagenette, with erasing": {
        "swap_prob": 0, "cutmix_prob": 0.5, "mixup_prob": 0.2, "erase_prob": 0.25,
    },
    "sounds": {
        "swap_prob": 0, "cutmix_prob": 0, "mixup_prob": 0.5, "freq_masks": 1, "time_masks": 1,
    },
}  # fmt: skip
"""Changes of the default augmentation."""


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median seconds of ``work`` on the device, after one run that compiles."""
    work()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return statistics.median(times)


def time_unpacking(num_codes: int, repeats: int) -> list[dict[str, float]]:
    """Measure GB/s (read and written) of gathering and unpacking rows of a resident split."""
    size = sample_bytes(LENGTH, token_bits(num_codes))
    packed_NS = torch.randint(256, (RESIDENT_SAMPLES, size), dtype=torch.uint8, device="cuda")
    entries = []
    for batch in UNPACK_BATCHES:
        rows = torch.randint(RESIDENT_SAMPLES, (batch,), device="cuda")
        found = unpack_triton(packed_NS, length=LENGTH, num_codes=num_codes, rows=rows)
        if not torch.equal(found, unpack(packed_NS[rows], length=LENGTH, num_codes=num_codes)):
            raise SystemExit("the unpacked ids differ from those of seit.stream.packed")
        moved = batch * size + found.nbytes
        source = torch.zeros(moved // 2, dtype=torch.uint8, device="cuda")
        target = torch.empty_like(source)
        work = {
            "triton": lambda rows=rows: unpack_triton(
                packed_NS, length=LENGTH, num_codes=num_codes, rows=rows
            ),
            "torch": lambda rows=rows: unpack(packed_NS[rows], length=LENGTH, num_codes=num_codes),
            "copy": lambda source=source, target=target: target.copy_(source),
        }
        rates = {name: moved / seconds(run, repeats) / 1e9 for name, run in work.items()}
        entries.append({"batch": batch, "bytes_moved": moved, "gb_per_second": rates})
    return entries


def smooth_tokens(num_codes: int, count: int) -> np.ndarray:
    """Return ids (N, H, W) that resemble their neighbors, as those of pictures do."""
    walk = np.random.default_rng(0).normal(size=(count, *GRID)).cumsum(1).cumsum(2)
    ranks = walk.reshape(-1).argsort().argsort().reshape(walk.shape)
    return (ranks * num_codes // ranks.size).astype(np.uint16)


def time_context(num_codes: int, repeats: int) -> dict[str, object]:
    """Measure samples/s of context decoding on the device and on one CPU core."""
    tokens = smooth_tokens(num_codes, CODED_SAMPLES)
    codebook = np.arange(num_codes, dtype=np.float64)[:, None]
    tables = fit_tables(tokens, codebook, total_samples=1_000_000)
    words, sizes = Coder(tables).encode(tokens.reshape(len(tokens), -1), GRID)
    ends = np.cumsum(sizes)
    bounds = torch.from_numpy(np.stack([ends - sizes, ends], axis=1))
    words_once = torch.from_numpy(words.view(np.int16))
    on_processor = ContextDecoder(tables, device=torch.device("cpu"))
    on_processor.decode(words_once, bounds[:4], GRID)
    started = time.perf_counter()
    on_processor.decode(words_once, bounds, GRID)
    processor_rate = len(tokens) / (time.perf_counter() - started)
    on_device = DeviceTables.from_tables(tables, torch.device("cuda"))
    expected = torch.from_numpy(tokens.view(np.int16)).cuda()
    entries = []
    for batch in CONTEXT_BATCHES:
        # Copies have separate addresses, so that caches help no more than in real use.
        copies = -(-batch // len(tokens))
        shifts = torch.arange(copies)[:, None, None] * len(words)
        many_bounds = (bounds + shifts).view(-1, 2)[:batch].cuda()
        many_words = words_once.repeat(copies).cuda()

        def work(words=many_words, bounds=many_bounds):
            return decode_context_triton(words, bounds, GRID, on_device)

        ids, whole = work()
        wanted = expected.repeat(copies, 1, 1)[:batch]
        if not (whole.all() and torch.equal(ids, wanted)):
            raise SystemExit("the decoded ids differ from the encoded ones")
        rate = batch / seconds(work, repeats)
        entries.append({"batch": batch, "samples_per_second": rate})
    return {
        "bytes_per_sample": 2 * len(words) / len(tokens),
        "packed_bytes_per_sample": sample_bytes(LENGTH, token_bits(num_codes)),
        "table_bytes_on_device": on_device.weights.nbytes + on_device.corner.nbytes,
        "processor_samples_per_second": processor_rate,
        "device": entries,
    }


def time_split(num_codes: int) -> dict[str, float]:
    """Measure samples/s of making a context-coded split resident with all threads."""
    tokens = smooth_tokens(num_codes, BLOCK_SAMPLES)
    codebook = np.arange(num_codes, dtype=np.float64)[:, None]
    tables = fit_tables(tokens, codebook, total_samples=1_000_000)
    layout = TokenLayout(GRID, num_codes)
    codecs = {
        "processor": ContextCodec(layout, tables),
        "device": DeviceContextCodec(layout, tables, torch.device("cuda")),
    }
    frame = codecs["processor"].encode(tokens)
    expected = codecs["processor"].decode_packed(frame)
    rates = {}
    for name, codec in codecs.items():
        if not np.array_equal(codec.decode_packed(frame), expected):
            raise SystemExit("the decoded blocks differ from the encoded ones")
        started = time.perf_counter()
        for _ in map_ahead(codec.decode_packed, [frame] * SPLIT_BLOCKS):
            pass
        rates[name] = SPLIT_BLOCKS * BLOCK_SAMPLES / (time.perf_counter() - started)
    return rates


def copy_rate(num_bytes: int, repeats: int) -> float:
    """Measure GB/s (read and written) of a plain copy that moves ``num_bytes``."""
    source = torch.zeros(num_bytes // 2, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return num_bytes / seconds(lambda: target.copy_(source), repeats) / 1e9


def time_fused(repeats: int) -> list[dict[str, object]]:
    """Time the fused kernel alone, from ids and from packed rows, and whole augmentations."""
    size = sample_bytes(LENGTH, token_bits(FUSED_CODES))
    packed_NS = torch.randint(256, (FUSED_RESIDENT_SAMPLES, size), dtype=torch.uint8, device="cuda")
    codebook = torch.randn((FUSED_CODES, FUSED_CHANNELS), device="cuda")
    return [time_fused_batch(batch, packed_NS, codebook, repeats) for batch in FUSED_BATCHES]


def time_fused_batch(
    batch: int, packed_NS: torch.Tensor, codebook: torch.Tensor, repeats: int
) -> dict[str, object]:
    """Time one batch of random rows: bfloat16 inputs, with noise and CutMix."""
    config = AugmentConfig(synonym_prob=0, swap_prob=0)
    in_torch = TokenAugment(codebook, GRID, config)
    fused = FusedAugment(codebook, GRID, config, dtype=torch.bfloat16)
    rows = torch.randint(len(packed_NS), (batch,), device="cuda")
    ids = unpack_triton(packed_NS, length=LENGTH, num_codes=FUSED_CODES, rows=rows)
    ids = ids.clamp_(max=FUSED_CODES - 1).view(-1, *GRID)
    positions = torch.arange(batch, device="cuda")
    labels = torch.zeros(batch, dtype=torch.int64, device="cuda")
    plan = draw_plan(
        SampleRandom(0, 0, positions),
        config,
        grid=GRID,
        size=in_torch.output_size,
        num_channels=FUSED_CHANNELS,
        units=in_torch.noise_units,
    )
    whole = {"positions": positions, "seed": 0, "epoch": 0}
    recipes = {
        name: time_recipe(AugmentConfig(**changes), packed_NS, rows, codebook, repeats)
        for name, changes in RECIPES.items()
    }
    expected = in_torch(ids, labels, **whole).inputs
    embed = partial(
        fused_embed, plan=plan, grid=GRID, size=in_torch.output_size, dtype=torch.bfloat16
    )
    from_rows = partial(embed, packed_NS, rows=rows)
    kernels = {
        "ids": partial(embed, ids, codebook),
        "ids, channels last": partial(embed, ids, codebook, channels_last=True),
        "rows": partial(from_rows, codebook),
        "rows, channels last": partial(from_rows, codebook, channels_last=True),
        "ids, bfloat16 codebook": partial(embed, ids, codebook.bfloat16()),
    }
    figures = {}
    for name, work in kernels.items():
        tolerance = 0.03 if "bfloat16" in name else 1e-4
        if not torch.allclose(work().float(), expected, rtol=2**-7, atol=tolerance):
            raise SystemExit(f"the inputs of the fused kernel ({name}) differ from those of torch")
        read = batch * packed_NS.shape[1] if name.startswith("rows") else ids.nbytes
        figures[name] = kernel_figures(work, batch, read + expected.numel() * 2, repeats)
    return {
        "batch": batch,
        "kernel": figures,
        "whole_samples_per_second": {
            "fused": batch / seconds(partial(fused, ids, labels, **whole), repeats),
            "torch": batch / seconds(partial(in_torch, ids, labels, **whole), repeats),
        },
        "recipes": recipes,
    }


def time_recipe(
    config: AugmentConfig,
    packed_NS: torch.Tensor,
    rows: torch.Tensor,
    codebook: torch.Tensor,
    repeats: int,
) -> dict[str, dict[str, float]]:
    """Time an augmentation from packed rows to inputs, and its first steps."""
    batch = len(rows)
    in_torch = TokenAugment(codebook, GRID, config)
    fused = FusedAugment(codebook, GRID, config, dtype=torch.bfloat16, channels_last=True)
    positions = torch.arange(batch, device="cuda")
    labels = torch.zeros(batch, dtype=torch.int64, device="cuda")
    shape = {"grid": GRID, "size": in_torch.output_size, "num_channels": FUSED_CHANNELS}

    def unpack_rows() -> torch.Tensor:
        ids = unpack_triton(packed_NS, length=LENGTH, num_codes=FUSED_CODES, rows=rows)
        return ids.clamp_(max=FUSED_CODES - 1).view(-1, *GRID)

    def draw(by: Callable[..., object]) -> object:
        return by(SampleRandom(0, 0, positions), config, units=in_torch.noise_units, **shape)

    def edit_by_triton() -> torch.Tensor:
        source = TokenSource.of(
            packed_NS, rows, num_samples=batch, grid=GRID, num_codes=FUSED_CODES
        )
        return edit_triton(source, in_torch.synonyms, SampleRandom(0, 0, positions), config)

    def run_torch() -> torch.Tensor:
        return in_torch(unpack_rows(), labels, positions=positions, seed=0, epoch=0).inputs

    def run_fused() -> torch.Tensor:
        return fused.augment_rows(
            packed_NS, rows, labels, positions=positions, seed=0, epoch=0
        ).inputs

    if not torch.allclose(run_fused().float(), run_torch(), rtol=2**-7, atol=1e-4):
        raise SystemExit("the inputs of the fused recipe differ from those of torch")
    work = {
        "plan": {"triton": partial(draw, draw_plan_triton), "torch": partial(draw, draw_plan)},
        "edits": {
            "triton": edit_by_triton,
            "torch": lambda: in_torch._edit(unpack_rows().long(), SampleRandom(0, 0, positions)),
        },
        "all": {"triton": run_fused, "torch": run_torch},
    }
    return {
        step: {name: batch / seconds(run, repeats) for name, run in runs.items()}
        for step, runs in work.items()
    }


def kernel_figures(
    work: Callable[[], object], batch: int, bytes_moved: int, repeats: int
) -> dict[str, float]:
    """Return samples/s, and the tokens read and inputs written as a share of a copy's bandwidth."""
    duration = seconds(work, repeats)
    rate = bytes_moved / duration / 1e9
    return {
        "samples_per_second": batch / duration,
        "bytes_moved": bytes_moved,
        "gb_per_second": rate,
        "share_of_copy": rate / copy_rate(bytes_moved, repeats),
    }


def main() -> None:
    """Run the timings and print their JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--codes", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("the kernels need a CUDA device; torch finds none")
    if not triton_serves(torch.device("cuda")):
        raise SystemExit("Triton does not work here")
    codes, repeats = arguments.codes, arguments.repeats
    parts: dict[str, Callable[[], object]] = {
        "unpack": partial(time_unpacking, codes, repeats),
        "context": partial(time_context, codes, repeats),
        "split": partial(time_split, codes),
        "fused": partial(time_fused, repeats),
    }
    for name, run in parts.items():
        entry = {"kernel": name, "codes": codes, "grid": GRID, "repeats": repeats}
        print(json.dumps({**entry, "figures": run()}), flush=True)


if __name__ == "__main__":
    main()
