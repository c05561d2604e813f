"""Job in pieces: fit on a sample, one pass over the corpus by any number of workers, and the seal.

The driver's memory grows with the number of pieces, not with their samples.
"""

import hashlib
import logging
import os
import shutil
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from seit.devices import choose_device
from seit.documents import read_plain
from seit.errors import SeitError, UsageError
from seit.ingest.config import TokenizeConfig
from seit.ingest.description import check_same_job, describe_job
from seit.ingest.engines.base import Work
from seit.ingest.engines.registry import choose_engine
from seit.ingest.fit import make_reader
from seit.ingest.inputs.reader import Reader
from seit.ingest.pieces.duplicates import Repeats, find_repeats
from seit.ingest.pieces.find import find_pieces
from seit.ingest.pieces.labels import renumbering, settle_classes
from seit.ingest.pieces.maker import PieceTask
from seit.ingest.pieces.piece import PieceRecord, Pieces
from seit.ingest.pieces.place import JobPlace, Ready, record_name
from seit.ingest.pieces.plant import PiecePlant, Task
from seit.ingest.pieces.revision import RevisionTask
from seit.ingest.pieces.sample import fit_job
from seit.ingest.pieces.seal import Sealed, label_warnings, seal_store
from seit.ingest.pieces.waits import say_waits
from seit.ingest.resolve import resolve_tokenizer, with_own_backbone
from seit.ingest.result import TokenizeResult, result_of
from seit.ingest.sources.corpus import shown
from seit.ingest.workspace import check_target
from seit.locks import LOCK_NAME, refuse_links, take_lock
from seit.lookahead import map_ahead
from seit.shards import CARD_NAME, SKIPPED_NAME, LocalFolder, Store, TokenLayout, open_store
from seit.stores import JOB_FOLDER
from seit.tokenizers import Tokenizer

MAX_CLASSES_BYTES = 1 << 26
"""Size limit of a list of classes."""
_LOG = logging.getLogger(__name__)
Progress = Callable[[int, int, int], None]
"""Callback that receives (pieces done, all pieces, inputs skipped)."""


class Finished:
    """Records of finished pieces, compressed: about 400 bytes each."""

    def __init__(self, count: int) -> None:
        self._records: list[bytes | None] = [None] * count

    def __setitem__(self, number: int, record: PieceRecord) -> None:
        self._records[number] = zlib.compress(record.to_json(), 1)

    def __iter__(self) -> Iterator[PieceRecord]:
        for data in self._records:
            assert data is not None, "all pieces are finished when they are read"
            yield PieceRecord.from_json(zlib.decompress(data))

    @property
    def missing(self) -> list[int]:
        """Numbers of the pieces without a record."""
        return [number for number, data in enumerate(self._records) if data is None]


def tokenize_pieces(
    source: str | Path,
    store: str | Path,
    config: TokenizeConfig,
    *,
    progress: Progress | None = None,
) -> TokenizeResult:
    """Tokenize a corpus in pieces into a store at a path or URL; resumes an interrupted job.

    Raises:
        UsageError: invalid input, or ``store`` holds something else; nothing was changed.
        SeitError: the place cannot be written, an input is unreadable and ``strict`` is set, or
            no input is readable. Finished pieces are kept for the next call.
    """
    place = JobPlace(str(store))
    if isinstance(place.folder, LocalFolder):
        check_target(place.folder.path, source)
    config, given = resolve_tokenizer(config)
    corpus = replace(find_pieces(source, config), **_given_classes(config))
    job = describe_job(corpus.fingerprint, config, given)
    if corpus.classes is not None:
        digest = hashlib.sha256("\n".join(corpus.classes).encode())
        job["classes"] = digest.hexdigest()
    with _lock(place):
        finished = _finished(place, job, corpus, config)
        if finished is not None:
            return finished
        return _Job(place, corpus, config, job, progress).run(given)


def _given_classes(config: TokenizeConfig) -> dict[str, Any]:
    """Return the classes of the file that the settings name."""
    if config.classes is None:
        return {}
    try:
        text = read_plain(config.classes, max_bytes=MAX_CLASSES_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise UsageError(f"{config.classes} cannot be read as a list of classes: {error}") from None
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    doubles = [name for name, count in Counter(names).items() if count > 1]
    if doubles or not names:
        what = f"names {shown(doubles[0])} twice" if doubles else "names no class"
        raise UsageError(f"{config.classes} {what}; expected one class a line")
    return {"classes": names}


@contextmanager
def _lock(place: JobPlace) -> Iterator[None]:
    """Lock a folder on a disk; in object storage, two drivers of a job write the same bytes."""
    if not isinstance(place.folder, LocalFolder):
        yield
        return
    path = place.folder.path / JOB_FOLDER
    refuse_links(path)
    is_new = not place.folder.path.exists()
    lock = take_lock(path / LOCK_NAME, busy=f"another job is writing {place}")
    try:
        yield
    finally:
        with suppress(OSError):
            if place.read_job() is None:
                shutil.rmtree(path, ignore_errors=True)
                if is_new:
                    place.folder.path.rmdir()
        os.close(lock)


def _finished(
    place: JobPlace, job: dict[str, Any], corpus: Pieces, config: TokenizeConfig
) -> TokenizeResult | None:
    """Return the result of a job that is finished, and clean up after it; None otherwise.

    Raises:
        UsageError: another job's store is there, and it is not to be replaced.
    """
    if config.overwrite or not place.folder.exists(CARD_NAME):
        return None
    store = open_store(place.folder)
    check_same_job(dict(store.card.job), job, str(place))
    if config.strict and store.card.skipped:
        raise SeitError(
            f"{place} is complete but lacks {store.card.skipped:,} inputs that could not be read; "
            f"{SKIPPED_NAME} says why"
        )
    if place.read_job() is not None:
        place.clean_up([record.file for record in store.card.records])
    return result_of(store, 0.0, corpus.warnings)


class _Job:
    """One call of a job in pieces."""

    def __init__(
        self,
        place: JobPlace,
        corpus: Pieces,
        config: TokenizeConfig,
        job: dict[str, Any],
        progress: Progress | None,
    ) -> None:
        self.place = place
        self.corpus = corpus
        self.config = config
        self.job = job
        self.progress = progress
        self.pieces_done = 0
        self.inputs_skipped = 0

    def run(self, given: Tokenizer | None) -> TokenizeResult:
        """Fit, make the missing pieces, revise them if needed, and seal the store."""
        self._begin()
        with make_reader(self.config) as reader:
            ready = self.place.read_ready() or self._fit(given, reader)
            device = choose_device(self.config.device if self.config.engine == "local" else "cpu")
            tokenizer = with_own_backbone(self.place.load_tokenizer(), self.config).to(device)
            plant = PiecePlant(self.place, self.corpus.reader, self.corpus.classes, ready.codec)
            work = Work(
                config=self.config,
                plant=plant,
                tokenizer=tokenizer,
                reader=reader,
                advance=self._count_none if self.config.engine == "local" else self._advance,
            )
            started = time.perf_counter()
            records = Finished(len(self.corpus.pieces))
            made = self._make(work, records)
            seconds = time.perf_counter() - started
            classes, warnings, sealed = self._settle(work, records, ready, tokenizer)
        card = seal_store(
            self.place,
            self.corpus,
            self.config,
            self.job,
            ready=ready,
            tokenizer=tokenizer,
            classes=classes,
            sealed=sealed,
        )
        self.place.clean_up([record.file for record in card.records])
        remarks = {name: count for name, (count, _) in sealed.remarks.counts.items()}
        warnings += label_warnings(self.corpus, classes, sealed)
        rate = made / seconds if made else 0.0
        return result_of(Store(self.place.folder, card), rate, tuple(warnings), remarks=remarks)

    def _begin(self) -> None:
        """Begin the job or continue it.

        Raises:
            UsageError: the place holds another job or something else.
        """
        earlier = self.place.read_job()
        if earlier is not None and earlier != self.job and not self.config.overwrite:
            check_same_job(earlier, self.job, str(self.place))
        if earlier != self.job:
            if self.config.overwrite:
                self.place.empty(but=f"{JOB_FOLDER}/{LOCK_NAME}")
            self.place.check_empty()
            if not self.place.claim(self.job):
                check_same_job(self.place.read_job() or {}, self.job, str(self.place))

    def _fit(self, given: Tokenizer | None, reader: Reader) -> Ready:
        _LOG.info("fitting to a sample of %s pieces", f"{len(self.corpus.pieces):,}")
        fit = fit_job(self.corpus, self.config, given, reader)
        self.place.write_fit(fit.tokenizer, fit.codec, fit.ready)
        return fit.ready

    def _make(self, work: Work[Task, PieceRecord], records: Finished) -> int:
        """Make the missing pieces; return the number of samples made."""
        pieces = self.corpus.pieces
        done = self.place.finished()
        old = [number for number in range(len(pieces)) if record_name(number) in done]
        names = [record_name(number) for number in old]
        for number, record in zip(old, map_ahead(self.place.read_record, names), strict=True):
            if record is not None:
                records[number] = record
                self._advance(1, len(record.skipped))
        missing = records.missing
        left = f"{len(missing):,} of {len(pieces):,} pieces are left"
        _LOG.info("tokenizing with %s: %s", work.tokenizer.name, left)
        made = 0
        tasks: list[Task] = [PieceTask(number, pieces[number]) for number in missing]
        for place, record in choose_engine(self.config.engine)(work, tasks):
            records[missing[place]] = record
            made += record.samples
            if self.config.engine == "local":
                self._advance(1, len(record.skipped))
        return made

    def _settle(
        self,
        work: Work[Task, PieceRecord],
        records: Finished,
        ready: Ready,
        tokenizer: Tokenizer,
    ) -> tuple[tuple[str, ...], list[str], Sealed]:
        """Return the classes, warnings, and sums over all pieces, revised where needed."""
        warnings = []
        labels: dict[str, int] = {}
        if self.corpus.classes is None:
            classes, labels = settle_classes(records)
        else:
            classes = self.corpus.classes
        layout = TokenLayout(grid=tokenizer.grid, num_codes=tokenizer.num_codes)
        codec = self.place.load_codec(layout, ready.codec)
        repeats = Repeats({}, 0, [])
        if self.corpus.reader.repeats:
            repeats = find_repeats(self.place, codec, records)
        if repeats.repeated:
            warnings.append(
                f"{repeats.repeated:,} inputs are listed again with the same label; the first of "
                "each is kept"
            )
        tasks: list[Task] = []
        for number, record in enumerate(records):
            changes = renumbering(record, labels) if labels else {}
            dropped = repeats.dropped.get(number, {})
            if changes or dropped:
                tasks.append(RevisionTask(number, len(self.corpus.pieces), changes, dropped))
        if tasks:
            _LOG.info("revising %s pieces, as their labels or keys ask for", f"{len(tasks):,}")
        quiet = replace(work, advance=self._count_none)
        for place, record in choose_engine(self.config.engine)(quiet, tasks):
            records[tasks[place].number] = record
        sealed = Sealed(records)
        sealed.skip(repeats.disputed)
        _LOG.info("workers waited for %s", say_waits(sealed.seconds))
        return classes, warnings, sealed

    def _advance(self, pieces: int, skipped: int) -> None:
        self.pieces_done += pieces
        self.inputs_skipped += skipped
        if self.progress:
            self.progress(self.pieces_done, len(self.corpus.pieces), self.inputs_skipped)

    def _count_none(self, _pieces: int, _skipped: int) -> None:
        """Ignore progress that is counted elsewhere."""
