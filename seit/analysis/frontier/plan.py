"""Plan of a comparison: its bytes and runs, before anything is written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seit.analysis.frontier.config import FrontierConfig
from seit.analysis.frontier.corpora import copier_of, estimated_bytes, original_bytes
from seit.analysis.frontier.points import Family, Point
from seit.errors import UsageError
from seit.ingest import Corpus, Instance, list_corpus, resolve_tokenizer
from seit.outcomes import Outcome
from seit.shards import TokenLayout, is_url

_PATCH_SIDE = 8


@dataclass(frozen=True)
class PlannedPoint:
    """Point before its runs.

    Attributes:
        name: name of the point.
        family: quantity that it varies.
        samples: training pictures.
        bytes: bytes of the training data: exact for original files, estimated from 32 if some were
            listed without a size; estimated from 32 copies for JPEG and resolutions; for tokens at
            fixed width, before entropy coding.
        bytes_per_sample: `bytes` over `samples`.
        runs: training runs.
    """

    name: str
    family: Family
    samples: int
    bytes: int
    bytes_per_sample: float
    runs: int


@dataclass(frozen=True, repr=False)
class FrontierPlan(Outcome):
    """Comparison before its runs.

    Attributes:
        points: points in the order requested.
    """

    recorded = ("points", "runs")

    points: tuple[PlannedPoint, ...]

    @property
    def runs(self) -> int:
        """Training runs of all points."""
        return sum(point.runs for point in self.points)


def plan_frontier(
    source: str | Path, config: FrontierConfig, *, out: str | Path | None = None
) -> tuple[PlannedPoint, ...]:
    """List SRC and estimate the bytes of every point, without writing anything.

    Raises:
        UsageError: invalid input or settings, or the folder ``out`` lies inside SRC.
    """
    if out is not None:
        check_apart(out, source)
    size = find_size(config)
    corpus = list_labelled(source, config)
    train = corpus.by_split()[config.base.data.train_split]
    planned: list[PlannedPoint] = []
    trained: set[str] = set()
    for point in config.parsed_points:
        samples, num_bytes = _estimate(point, train, config, size)
        runs = 0 if point.trained_as in trained else config.seeds
        trained.add(point.trained_as)
        planned.append(
            PlannedPoint(
                name=point.name,
                family=point.family,
                samples=samples,
                bytes=round(num_bytes),
                bytes_per_sample=num_bytes / samples,
                runs=runs,
            )
        )
    return tuple(planned)


def find_size(config: FrontierConfig) -> int:
    """Return the side in pixels of the squares that all tokenizers of a comparison take.

    Raises:
        UsageError: a tokenizer does not exist, or takes other squares.
    """
    for point in config.parsed_points:
        if point.tokenizer:
            resolve_tokenizer(config.tokenize_config(point))
    size = resolve_tokenizer(config.tokenize_config(None))[0].size
    assert size is not None, "images have a size"
    return size


def check_apart(out: str | Path, source: str | Path) -> None:
    """Raise UsageError if a folder lies inside SRC, whose files it would be among."""
    if not is_url(str(source)) and Path(out).resolve().is_relative_to(Path(source).resolve()):
        raise UsageError(f"--out {out} lies inside SRC {source}; choose a folder outside it")


def list_labelled(source: str | Path, config: FrontierConfig) -> Corpus:
    """List a corpus on which classifiers can be trained and validated.

    Raises:
        UsageError: it has no classes, or lacks one of the splits.
    """
    corpus = list_corpus(source, val_fraction=config.val_fraction)
    if not corpus.classes:
        raise UsageError(
            f"{source} has no classes; a comparison needs a folder of class folders, or a manifest "
            "with labels"
        )
    data = config.base.data
    for split in (data.train_split, data.val_split):
        if split not in corpus.split_names:
            raise UsageError(
                f"{source} has no pictures in a split {split!r} but in "
                f"{', '.join(corpus.split_names)}; a comparison needs both of "
                f"{data.train_split} and {data.val_split}"
            )
    return corpus


def _estimate(
    point: Point, train: Sequence[Instance], config: FrontierConfig, size: int
) -> tuple[int, float]:
    """Return the samples and bytes of the training data."""
    count = len(train)
    if point.tokenizer:
        settings, given = resolve_tokenizer(config.tokenize_config(point))
        side = size // _PATCH_SIDE
        layout = TokenLayout(
            grid=given.grid if given else (side, side),
            num_codes=given.num_codes if given else settings.fitted_codes,
        )
        return count, float(layout.sample_bytes * count)
    if point.quality:
        return count, estimated_bytes(train, copier_of(point, size=size)) * count
    return math.ceil(count * point.fraction), original_bytes(train) * count * point.fraction
