"""Preparation and training of every point; existing results are kept.

OUT holds ``corpora/`` (copies), ``stores/``, ``runs/POINT/seed-N``, ``frontier.json``,
``frontier.svg`` and ``report.html``.
"""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from seit.analysis.frontier.config import FrontierConfig, differences
from seit.analysis.frontier.corpora import copied_bytes, copier_of, copy_psnr, make_copy
from seit.analysis.frontier.plan import check_apart, find_size, list_labelled
from seit.analysis.frontier.points import FITTED, Point
from seit.analysis.frontier.report import draw_chart, write_frontier_report
from seit.analysis.frontier.rows import Row, Size, make_row, pareto_front, store_size
from seit.documents import read_json
from seit.errors import UsageError
from seit.files import PARTIAL_SUFFIX, write_atomically
from seit.ingest import Corpus, size_of, tokenize
from seit.locks import RUN_LOCK_NAME, locked_folder
from seit.outcomes import Outcome
from seit.progress import StageProgress
from seit.shards import CARD_NAME, Split, Store, is_url, open_store
from seit.stores import convert_store
from seit.stream import select
from seit.training import REPORT_NAME, Run, TrainResult, train

_LOG = logging.getLogger(__name__)
RESULT_NAME = "frontier.json"
CHART_NAME = "frontier.svg"
MAX_RESULT_BYTES = 1 << 24


class _Comparison(TypedDict):
    """Contents of `frontier.json` other than rows."""

    settings: dict[str, Any]


@dataclass(frozen=True, repr=False)
class FrontierResult(Outcome):
    """Outcome of a comparison.

    Attributes:
        rows: points in the order requested.
        train_samples: pictures of the whole training split.
        val_samples: pictures on which every run is evaluated.
        steps: steps of each run.
        seeds: runs per point.
        seconds: duration of this call.
        environment: versions and hardware.
        chart: the SVG file.
        report: the HTML page.
    """

    rows: tuple[Row, ...]
    train_samples: int
    val_samples: int
    steps: int
    seeds: int
    seconds: float
    environment: Mapping[str, str]
    chart: Path
    report: Path


def run_frontier(
    source: str | Path,
    out: str | Path,
    *,
    config: FrontierConfig | None = None,
    progress: StageProgress | None = None,
) -> FrontierResult:
    """Train the same backbone from every point, and draw top-1 against bytes.

    All runs have the same recipe, steps, batch size and seeds. Each is validated on pictures stored
    in the same way as its training pictures.

    Args:
        source: a labeled corpus of images.
        out: a new folder, or that of an earlier call to continue. Points and seeds may be added
            there; all other settings must be the same.
        config: settings of the comparison.
        progress: callback for progress.

    Raises:
        UsageError: invalid input or settings, or ``out`` holds something else or results of other
            settings; nothing was changed.
        SeitError: another process is using ``out``, a disk is full, a file is unreadable or a run
            diverged.
    """
    started = time.perf_counter()
    config = config or FrontierConfig()
    size = find_size(config)
    corpus = list_labelled(source, config)
    out = Path(out).resolve()
    place = str(source) if is_url(str(source)) else str(Path(source).resolve())
    check_apart(out, source)
    with locked_folder(out):
        _enter(out, config.record(corpus.fingerprint))
        work = _Work(corpus, place, out, config, size, progress or _no_progress)
        result = _finish(work, place, started)
    return replace(result, seconds=time.perf_counter() - started)


def _finish(work: "_Work", place: str, started: float) -> FrontierResult:
    """Finish the remaining work, and write the page."""
    config, out = work.config, work.out
    work.finish()
    rows = work.rows()
    run = work.first_run()
    result = FrontierResult(
        rows=rows,
        train_samples=len(work.train_split),
        val_samples=len(work.val_split),
        steps=int(run.info["result"]["steps"]),
        seeds=config.seeds,
        seconds=time.perf_counter() - started,
        environment=run.info["environment"],
        chart=out / CHART_NAME,
        report=out / REPORT_NAME,
    )
    write_frontier_report(
        result,
        config,
        title=place.rstrip("/").rpartition("/")[2],
        split=work.val_split,
        pictures={
            point.name: work.pixels_of(point) or work.store_of(point)
            for point in config.parsed_points
            if point.codec == "context" and point.family != "subset"
        },
    )
    return result


def _enter(out: Path, record: Mapping[str, Any]) -> None:
    """Enter a new folder, or check that an earlier call had the same settings."""
    path = out / RESULT_NAME
    if path.exists():
        advice = "restore it or remove it"
        found = read_json(path, _Comparison, max_bytes=MAX_RESULT_BYTES, advice=advice)
        changed = differences(found["settings"], record)
        if changed and not _has_begun(out, found["settings"], record):
            return _write_result(out, record, ())
        if changed:
            raise UsageError(
                f"{out} holds a comparison of other settings ({'; '.join(changed)}); repeat them "
                "or choose another --out"
            )
        return None
    free = {RUN_LOCK_NAME, RESULT_NAME + PARTIAL_SUFFIX}
    if {entry.name for entry in out.iterdir()} - free:
        raise UsageError(f"{out} already holds something else; choose a new --out folder")
    return _write_result(out, record, ())


def _has_begun(out: Path, earlier: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Return True if anything in ``out`` depends on the earlier settings, beyond a refused call.

    Copies and stores do not depend on how networks are trained.
    """
    if any(Run.exists(path) for path in out.glob("runs/*/seed-*")):
        return True
    made = any((out / name).is_dir() for name in ("corpora", "stores"))
    return made and any(earlier.get(key) != record[key] for key in record if key != "train")


def _write_result(out: Path, record: Mapping[str, Any], rows: tuple[Row, ...]) -> None:
    values = {"settings": record, "rows": [asdict(row) for row in rows]}
    write_atomically(out / RESULT_NAME, json.dumps(values, indent=2).encode() + b"\n")


class _Work:
    """Work of one call in its folder."""

    def __init__(
        self,
        corpus: Corpus,
        source: str,
        out: Path,
        config: FrontierConfig,
        size: int,
        progress: StageProgress,
    ) -> None:
        self.corpus = corpus
        self.source = source
        self.out = out
        self.config = config
        self.size = size
        self.progress = progress
        self._results: dict[str, list[TrainResult]] = {}
        self._psnr: dict[str, float | None] = {}
        self._sizes: dict[tuple[str, int], Size] = {}
        self._stores: dict[str, Store] = {}

    def finish(self) -> None:
        """Train all points with the first seed, then with the second, for early figures of all."""
        points = {point.trained_as: point for point in self.config.parsed_points}
        for seed in range(self.config.seed, self.config.seed + self.config.seeds):
            for name, point in points.items():
                result = self._train(point, seed)
                self._results.setdefault(name, []).append(result)
                rows = self.rows()
                _write_result(self.out, self.config.record(self.corpus.fingerprint), rows)
                write_atomically(self.out / CHART_NAME, draw_chart(rows).encode())

    def rows(self) -> tuple[Row, ...]:
        """Rows of the points with a result."""
        rows = []
        for point in self.config.parsed_points:
            results = self._results.get(point.trained_as, ())
            if results:
                seeds = range(self.config.seed, self.config.seed + len(results))
                sizes = [self._size(point, seed) for seed in seeds]
                psnr_db = self._quality(point)
                rows.append(make_row(point.name, point.family, sizes, results, psnr_db=psnr_db))
        front = pareto_front(rows)
        return tuple(replace(row, is_on_front=row.name in front) for row in rows)

    def first_run(self) -> Run:
        """Any finished run."""
        return Run.open(self._run_folder(self.config.parsed_points[0], self.config.seed))

    @cached_property
    def reference(self) -> Store:
        """Store of `tokens-patch`, which provides labels and splits for all pixel points."""
        return self._tokenized(None)

    @property
    def train_split(self) -> Split:
        """Training split of the reference."""
        return self.reference[self.config.base.data.train_split]

    @property
    def val_split(self) -> Split:
        """Validation split of the reference."""
        return self.reference[self.config.base.data.val_split]

    def store_of(self, point: Point) -> Store:
        """Return the store on which a point is trained."""
        return self._tokenized(point) if point.tokenizer else self.reference

    def pixels_of(self, point: Point) -> str | None:
        """Return the corpus of pixels on which a point is trained; None for tokens."""
        if point.tokenizer:
            return None
        return str(self._copy(point)) if point.quality else self.source

    def _train(self, point: Point, seed: int) -> TrainResult:
        store, pixels = self.store_of(point), self.pixels_of(point)
        samples = len(self.train_split)
        settings = self.config.train_config(point, pixels=pixels, seed=seed, samples=samples)
        stage = f"train {point.name}, seed {seed}"
        _LOG.info("%s", stage)
        return train(
            settings,
            store,
            out=self._run_folder(point, seed),
            resume=True,
            progress=lambda done, total, _: self.progress(stage, done, total),
        )

    def _run_folder(self, point: Point, seed: int) -> Path:
        return self.out / "runs" / point.trained_as / f"seed-{seed}"

    def _tokenized(self, point: Point | None) -> Store:
        config = self.config.tokenize_config(point)
        is_fitted = config.tokenizer == FITTED
        name = f"{config.tokenizer}-{config.codes}" if is_fitted else config.tokenizer
        if name not in self._stores:
            tokenize(
                self.source,
                self.out / "stores" / name,
                config,
                progress=lambda done, total, _: self.progress(f"tokenize {name}", done, total),
            )
            self._stores[name] = open_store(self.out / "stores" / name)
        return self._stores[name]

    def _packed(self, point: Point) -> Store:
        store = self._tokenized(point)
        folder = store.path.with_name(f"{store.path.name}-packed")
        if not (folder / CARD_NAME).is_file():
            convert_store(store.path, folder, codec="packed")
        return open_store(folder)

    def _copy(self, point: Point) -> Path:
        folder = self.out / "corpora" / point.folder
        if not folder.is_dir():
            by_key = {entry.key: entry for entry in self.corpus.instances}
            keys = [*self.train_split.keys, *self.val_split.keys]
            make_copy(
                [by_key[key] for key in keys],
                folder,
                copier_of(point, size=self.size),
                workers=self.config.workers,
                advance=lambda done, total: self.progress(f"copy {point.name}", done, total),
            )
        return folder

    def _size(self, point: Point, seed: int) -> Size:
        """Return the size of the training data, which depends on the seed only for subsets."""
        key = (point.name, seed if point.family == "subset" else self.config.seed)
        if key not in self._sizes:
            self._sizes[key] = self._measure_size(point, seed)
        return self._sizes[key]

    def _measure_size(self, point: Point, seed: int) -> Size:
        split = self.train_split
        if point.tokenizer:
            store = self._packed(point) if point.codec == "packed" else self._tokenized(point)
            return store_size(store, split.name)
        if point.quality:
            sizes = copied_bytes(self._copy(point), split.keys)
            return Size(len(sizes), int(sizes.sum()))
        rows = select(split, fraction=point.fraction, seed=seed)
        return Size(len(rows), int(self._original_bytes[rows].sum()))

    @cached_property
    def _original_bytes(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        by_key = {entry.key: entry for entry in self.corpus.instances}
        sizes = (size_of(by_key[key]) for key in self.train_split.keys)
        return np.fromiter(sizes, np.int64, len(self.train_split))

    def _quality(self, point: Point) -> float | None:
        if point.name not in self._psnr:
            psnr_db: float | None = None
            if point.tokenizer:
                psnr_db = float(self._tokenized(point).card.quality["psnr_db"])
            elif point.quality:
                psnr_db = copy_psnr(self.val_split, self.source, self._copy(point))
            self._psnr[point.name] = psnr_db
        return self._psnr[point.name]


def _no_progress(stage: str, done: int, total: int) -> None:
    del stage, done, total
