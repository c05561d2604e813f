"""The whole story on a small corpus: render, tokenize, train from tokens and pixels, compare."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from markupsafe import Markup

from seit.recipes import find_recipe
from seit.renders import write_corpus
from seit.report import (
    Bar,
    Figure,
    Section,
    bar_chart,
    figures,
    image_grid,
    page,
    write_page,
)
from seit.settings import build, read_yaml
from seit.shards import Store, open_store
from seit.stream import PixelLoader
from seit.tokenize import TokenizeConfig, tokenize
from seit.train import Run, TrainConfig, train
from seit.train.predictions import read_confusion
from seit.train.report import confusion_sections, curves

RECIPE = "quickstart"
NUM_PICTURES = 8
Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


@dataclass(frozen=True)
class QuickstartResult:
    """What the comparison came to.

    Attributes:
        bytes_per_sample_tokens: bytes of the whole store over its samples.
        bytes_per_sample_source: mean size of the original files.
        bytes_ratio: the second over the first.
        top1_tokens: accuracy from tokens on the validation split, 0–1.
        top1_pixels: accuracy of the same backbone after as many steps on decoded pixels, 0–1.
        top1_ratio: the first over the second.
        samples_per_second_tokens: training rate from tokens.
        samples_per_second_pixels: training rate from decoded pixels.
        samples: instances of the corpus.
        steps: training steps of each run.
        psnr_db: of reconstructions from tokens, in dB.
        seconds: duration of this call.
        report: the HTML page.
    """

    bytes_per_sample_tokens: float
    bytes_per_sample_source: float
    bytes_ratio: float
    top1_tokens: float
    top1_pixels: float
    top1_ratio: float
    samples_per_second_tokens: float
    samples_per_second_pixels: float
    samples: int
    steps: int
    psnr_db: float
    seconds: float
    report: Path


def quickstart(
    out: str | Path,
    *,
    data: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> QuickstartResult:
    """Tokenize a corpus, train the same small ViT from tokens and from pixels, and compare.

    Args:
        out: folder for corpus, store, both runs and `report.html`; finished parts are kept.
        data: a folder of class folders; None renders the built-in corpus.
        steps: training steps of each run; None for the recipe's.
        seed: of corpus, weights and order.
        device: where to train.
        progress: called as the work goes on.
        announce: called with a line as each stage begins.

    Raises:
        UsageError: ``data`` is no labelled corpus, or ``out`` holds other things.
    """
    started = time.perf_counter()
    out = Path(out)
    say = announce or _silent
    tell = progress or _no_progress
    if data is None:
        say("rendering 2,000 pictures of ten classes")
        source = out / "corpus"
        write_corpus(source, seed=seed, progress=lambda done, total: tell("render", done, total))
    else:
        source = Path(data)
    say("tokenizing them into a store")
    result = tokenize(
        source,
        out / "store",
        TokenizeConfig(seed=seed),
        progress=lambda done, total, _: tell("tokenize", done, total),
    )
    store = open_store(out / "store")
    config = _config(steps, seed, device)
    say(f"training a small ViT from the tokens, {config.schedule.steps} steps")
    tokens = train(
        config,
        store,
        out=out / "run-tokens",
        resume=True,
        progress=lambda done, total, _: tell("train from tokens", done, total),
    )
    say("training the same ViT from the pixels, as many steps")
    pixel_config = replace(config, data=replace(config.data, pixels=str(source)))
    pixels = train(
        pixel_config,
        store,
        out=out / "run-pixels",
        resume=True,
        progress=lambda done, total, _: tell("train from pixels", done, total),
    )
    recorded = Run.open(out / "run-tokens").info["result"]
    recorded_pixels = Run.open(out / "run-pixels").info["result"]
    summary = QuickstartResult(
        bytes_per_sample_tokens=result.bytes_per_sample,
        bytes_per_sample_source=result.source_bytes_per_sample,
        bytes_ratio=result.source_bytes_per_sample / result.bytes_per_sample,
        top1_tokens=tokens.top1,
        top1_pixels=pixels.top1,
        top1_ratio=tokens.top1 / pixels.top1 if pixels.top1 else float("inf"),
        samples_per_second_tokens=recorded["samples_per_second"],
        samples_per_second_pixels=recorded_pixels["samples_per_second"],
        samples=result.samples,
        steps=tokens.steps,
        psnr_db=result.quality["psnr_db"],
        seconds=time.perf_counter() - started,
        report=out / "report.html",
    )
    _write_report(summary, store, source)
    return summary


def _config(steps: int | None, seed: int, device: str) -> TrainConfig:
    config = build(TrainConfig, read_yaml(find_recipe(RECIPE).path), origin=RECIPE)
    return replace(
        config,
        run=replace(config.run, seed=seed, device=device),
        schedule=replace(config.schedule, steps=steps or config.schedule.steps),
    )


def _write_report(summary: QuickstartResult, store: Store, source: Path) -> None:
    out = summary.report.parent
    runs = {"tokens": Run.open(out / "run-tokens"), "pixels": Run.open(out / "run-pixels")}
    environment = runs["tokens"].info["environment"]
    height, width = store.card.tokenizer.grid
    bars = [
        Bar("token store", summary.bytes_per_sample_tokens, f"{summary.bytes_ratio:.1f}× smaller"),
        Bar("original files", summary.bytes_per_sample_source, "as found"),
    ]
    tiles = figures(
        [
            Figure("smaller", f"{summary.bytes_ratio:.1f}×", "bytes per image"),
            Figure("top-1 from tokens", f"{summary.top1_tokens:.1%}"),
            Figure("top-1 from pixels", f"{summary.top1_pixels:.1%}"),
            Figure("PSNR", f"{summary.psnr_db:.1f} dB", "of reconstructions"),
        ]
    )
    counts = read_confusion(runs["tokens"])
    html = page(
        "Tokens instead of pixels",
        lead=f"{summary.samples:,} images, tokenized once, then one small ViT trained from the "
        f"tokens and the same one from the pixels, {summary.steps:,} steps each.",
        sections=[
            Section("In short", tiles),
            Section(
                "What a token keeps",
                _pictures(store, source),
                f"Above, what the tokenizer saw; below, what its {height * width:,} tokens say. "
                "The network sees neither of them: it reads the tokens' vectors.",
            ),
            Section(
                "Bytes per image",
                bar_chart(bars, title="Storage", unit_label="bytes per image"),
                "Every byte of the store counts: tokens, labels, keys, checksums, codebook.",
            ),
            Section("Learning curves", curves({name: run.metrics() for name, run in runs.items()})),
            *confusion_sections(counts, store.classes),
        ],
        footer=", ".join(f"{key} {value}" for key, value in environment.items()),
    )
    write_page(summary.report, html)


def _pictures(store: Store, source: Path) -> Markup:
    split = store["val" if "val" in store else "train"]
    loader = PixelLoader(
        split, source, batch_size=1, shuffle=False, seed=0, device="cpu", resident=False
    )
    chosen = np.linspace(0, len(split) - 1, min(NUM_PICTURES, len(split))).astype(np.int64)
    originals = loader.read(chosen).permute(0, 2, 3, 1).numpy()
    tokens = torch.from_numpy(split.tokens[chosen].astype(np.int64))
    decoded = store.load_tokenizer().decode(tokens).numpy()
    return image_grid(
        [("original", list(originals)), ("from tokens", list(decoded))], title="Reconstructions"
    )


def _silent(line: str) -> None:
    del line


def _no_progress(stage: str, done: int, total: int) -> None:
    del stage, done, total
