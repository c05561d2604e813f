"""Quickstart on a small corpus: render, tokenize, train from tokens and pixels, compare."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markupsafe import Markup

from seit.config import build
from seit.demo import write_corpus
from seit.errors import UsageError
from seit.files import PARTIAL_SUFFIX, write_atomically
from seit.ingest import TokenizeConfig, TokenizeResult, tokenize
from seit.locks import locked_folder
from seit.outcomes import Outcome
from seit.progress import StageProgress
from seit.recipes import find_recipe
from seit.report import (
    Bar,
    Figure,
    Section,
    bar_chart,
    figures,
    image_grid,
    page,
    say_share,
    write_page,
)
from seit.shards import Store, open_store
from seit.stream import PixelLoader
from seit.training import (
    Run,
    TrainConfig,
    confusion_sections,
    curves,
    fit_recipe,
    mcnemar_p,
    read_confusion,
    read_predictions,
    train,
)

RECIPE = "quickstart"
RUNS = ("run-tokens", "run-pixels")
"""Folders of the two runs."""
MARK_NAME = "quickstart.txt"
"""File beside a store that quickstart made, which it may replace."""
REPORT_NAME = "report.html"
NUM_PICTURES = 8
_SHOWN = 0.05
"""Largest p-value at which a difference counts as shown."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class QuickstartResult(Outcome):
    """Outcome of the comparison.

    Attributes:
        bytes_per_sample_tokens: bytes of the whole store over its samples.
        bytes_per_sample_source: mean size of the original files.
        bytes_ratio: ratio of the source's bytes to those of tokens.
        top1_tokens: accuracy from tokens on the validation split, 0–1.
        top1_pixels: accuracy of the same backbone after as many steps on decoded pixels, 0–1.
        top1_ratio: ratio of top-1 from tokens to that from pixels.
        samples_per_second_tokens: training rate from tokens.
        samples_per_second_pixels: training rate from decoded pixels.
        samples: instances of the corpus.
        steps: training steps of each run.
        psnr_db: PSNR of reconstructions from tokens, in dB.
        seconds: duration of this call.
        report: the HTML page.
        val_samples: pictures on which both are validated.
        p_value: probability of a difference in top-1 this large if neither is better.
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
    val_samples: int
    p_value: float

    @property
    def verdict(self) -> str:
        """Sentence that compares top-1 from tokens and from pixels, with its confidence."""
        test = f"p = {self.p_value:.2g} by McNemar's exact test on {self.val_samples:,} pictures"
        if self.p_value > _SHOWN:
            return f"no difference shown: {test}"
        return f"{self.top1_ratio:.2f} of the pixels', {test}"


def run_quickstart(
    out: str | Path,
    *,
    data: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: StageProgress | None = None,
) -> QuickstartResult:
    """Tokenize a corpus, train the same small ViT from tokens and from pixels, and compare.

    Args:
        out: folder for corpus, store, both runs and `report.html`; finished parts are kept.
        data: a folder of class folders; None renders the built-in corpus.
        steps: training steps of each run; None for the recipe's.
        seed: seed of corpus, weights and order.
        device: training device.
        progress: callback for progress.

    Raises:
        UsageError: ``data`` is not a labeled corpus, or ``out`` holds other things.
        SeitError: another process is using ``out``.
    """
    out = Path(out)
    _refuse_foreign(out)
    with locked_folder(out):
        settings = partial(_config, steps=steps, seed=seed, device=device)
        return _quickstart(out, data, seed, settings, progress or _no_progress)


def _refuse_foreign(out: Path) -> None:
    """Refuse a folder that holds anything but the parts of a comparison.

    Raises:
        UsageError: it does, or it is a file.
    """
    if not out.exists():
        return
    own = {"corpus", "store", *RUNS, MARK_NAME, REPORT_NAME}
    names = sorted(entry.name for entry in out.iterdir()) if out.is_dir() else [out.name]
    foreign = [
        name for name in names if name[0] != "." and name.removesuffix(PARTIAL_SUFFIX) not in own
    ]
    if foreign:
        raise UsageError(
            f"{out} holds {foreign[0]}, which is not of seit quickstart; name a new folder for its "
            "results, and pass your pictures as --data"
        )


def _quickstart(
    out: Path,
    data: str | None,
    seed: int,
    settings: Callable[[Store], TrainConfig],
    tell: StageProgress,
) -> QuickstartResult:
    started = time.perf_counter()
    if data is None:
        _LOG.info("rendering 2,000 pictures of ten classes")
        source = out / "corpus"
        write_corpus(source, seed=seed, progress=lambda done, total: tell("render", done, total))
    else:
        source = Path(data)
    result = _tokenize(source, out, seed, tell)
    store = open_store(out / "store")
    config = settings(store)
    _LOG.info("training a small ViT from the tokens")
    tokens = train(
        config,
        store,
        out=out / RUNS[0],
        resume=True,
        progress=lambda done, total, _: tell("train from tokens", done, total),
    )
    _LOG.info("training the same ViT from the pixels, as many steps")
    pixel_config = replace(config, data=replace(config.data, pixels=str(source)))
    pixels = train(
        pixel_config,
        store,
        out=out / RUNS[1],
        resume=True,
        progress=lambda done, total, _: tell("train from pixels", done, total),
    )
    recorded = Run.open(out / RUNS[0]).info["result"]
    recorded_pixels = Run.open(out / RUNS[1]).info["result"]
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
        report=out / REPORT_NAME,
        **_judge(out),
    )
    _write_report(summary, store, source)
    return summary


def _tokenize(source: Path, out: Path, seed: int, tell: StageProgress) -> TokenizeResult:
    """Make the store; its own of another corpus is replaced unless a run has begun on it."""
    _LOG.info("tokenizing them into a store")
    config = TokenizeConfig(seed=seed)
    begun = any(Run.exists(out / name) for name in RUNS)
    mark = out / MARK_NAME
    if not (out / "store").exists():
        write_atomically(mark, b"store/ was made by seit quickstart, which may replace it.\n")

    def progress(done: int, total: int, _: int) -> None:
        tell("tokenize", done, total)

    try:
        result = tokenize(source, out / "store", config, progress=progress)
    except UsageError as error:
        if begun or not (out / "store").is_dir():
            raise
        if not mark.is_file():
            raise UsageError(
                f"{out / 'store'} was not made by seit quickstart; pass another folder as --out"
            ) from error
        config = replace(config, overwrite=True)
        result = tokenize(source, out / "store", config, progress=progress)
    assert isinstance(result, TokenizeResult), "only jobs in pieces have parts"
    return result


def _judge(out: Path) -> dict[str, Any]:
    """Return the number of validation pictures, and the p-value of the difference of both runs."""
    tokens, pixels = (read_predictions(Run.open(out / name)) for name in RUNS)
    assert tokens is not None
    assert pixels is not None
    only_tokens = int((tokens.right & ~pixels.right).sum())
    only_pixels = int((pixels.right & ~tokens.right).sum())
    return {"val_samples": len(tokens.right), "p_value": mcnemar_p(only_pixels, only_tokens)}


def _config(store: Store, *, steps: int | None, seed: int, device: str) -> TrainConfig:
    """Return the settings of both runs; a short one has as large a share of warm-up."""
    given = {"data.batch_size": None}  # steps are few: a small store is one batch
    recipe = build(TrainConfig, fit_recipe(find_recipe(RECIPE), store, given=given), origin=RECIPE)
    schedule, data = recipe.schedule, recipe.data
    if "train" in store and 0 < len(store["train"]) < data.batch_size:
        data = replace(data, batch_size=len(store["train"]))
    if steps is not None:
        assert schedule.steps, "the recipe counts in steps"
        assert schedule.warmup_steps is not None
        warmup = min(schedule.warmup_steps, steps * schedule.warmup_steps // schedule.steps)
        schedule = replace(schedule, steps=steps, warmup_steps=warmup)
    run = replace(recipe.run, seed=seed, device=device)
    return replace(recipe, run=run, schedule=schedule, data=data)


def _write_report(summary: QuickstartResult, store: Store, source: Path) -> None:
    out = summary.report.parent
    runs = {"tokens": Run.open(out / RUNS[0]), "pixels": Run.open(out / RUNS[1])}
    environment = runs["tokens"].info["environment"]
    height, width = store.card.tokenizer.grid
    bars = [
        Bar("token store", summary.bytes_per_sample_tokens, f"{summary.bytes_ratio:.1f}× smaller"),
        Bar("original files", summary.bytes_per_sample_source, "as found"),
    ]
    tiles = figures(
        [
            Figure("smaller", f"{summary.bytes_ratio:.1f}×", "bytes per image"),
            Figure("top-1 from tokens", *say_share(summary.top1_tokens, summary.val_samples)),
            Figure("top-1 from pixels", *say_share(summary.top1_pixels, summary.val_samples)),
            Figure("PSNR", f"{summary.psnr_db:.1f} dB", "of reconstructions"),
        ]
    )
    counts = read_confusion(runs["tokens"])
    html = page(
        "Tokens instead of pixels",
        lead=f"{summary.samples:,} images, tokenized once, then one small ViT trained from the "
        f"tokens and the same one from the pixels, {summary.steps:,} steps each.",
        sections=[
            Section("In short", tiles, f"Top-1 from tokens: {summary.verdict}."),
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


def _no_progress(stage: str, done: int, total: int) -> None:
    del stage, done, total
