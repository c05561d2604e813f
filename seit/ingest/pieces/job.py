"""Job in pieces: fit on a sample, one pass over the corpus by any number of workers, and the seal.

The driver's memory grows with the number of pieces, not with their samples.
"""

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from seit.devices import choose_device
from seit.errors import SeitError
from seit.ingest.config import TokenizeConfig
from seit.ingest.description import check_same_job, describe_job, is_same_job
from seit.ingest.engines.base import Work
from seit.ingest.engines.registry import choose_engine
from seit.ingest.fit import make_reader
from seit.ingest.inputs.reader import Reader
from seit.ingest.pieces.duplicates import Repeats, find_repeats
from seit.ingest.pieces.finished import Finished
from seit.ingest.pieces.labels import renumbering, settle_classes
from seit.ingest.pieces.maker import PieceTask
from seit.ingest.pieces.piece import PieceRecord, Pieces
from seit.ingest.pieces.place import JobPlace, Ready, record_name
from seit.ingest.pieces.plant import PiecePlant, Task
from seit.ingest.pieces.revision import RevisionTask
from seit.ingest.pieces.sample import fit_job
from seit.ingest.pieces.seal import Sealed, label_warnings, seal_store
from seit.ingest.pieces.settle import settle_pieces
from seit.ingest.pieces.waits import say_waits
from seit.ingest.replace import holds_store, replace_store
from seit.ingest.resolve import with_own_backbone
from seit.ingest.result import PartResult, TokenizeResult, result_of
from seit.ingest.shard import refuse_skipped
from seit.ingest.workspace import check_target
from seit.locks import LOCK_NAME, refuse_links, take_lock
from seit.lookahead import map_ahead
from seit.shards import CARD_NAME, SKIPPED_NAME, LocalFolder, Store, TokenLayout, open_store
from seit.store_folders import JOB_FOLDER
from seit.tokenizers import Tokenizer

FIT_SECONDS = 6 * 3600
"""Longest wait of a part for the fit."""
_POLL_SECONDS = 1.0
_LOG = logging.getLogger(__name__)
Progress = Callable[[int, int, int], None]
"""Callback that receives (pieces done, all pieces, inputs skipped)."""


def tokenize_pieces(
    source: str | Path,
    store: str | Path,
    config: TokenizeConfig,
    *,
    progress: Progress | None = None,
) -> TokenizeResult | PartResult:
    """Tokenize a corpus in pieces into a store at a path or URL; resumes an interrupted job.

    Raises:
        UsageError: invalid input, or ``store`` holds something else; nothing was changed.
        SeitError: the place cannot be written, an input is unreadable and ``strict`` is set, or
            no input is readable. Finished pieces are kept for the next call.
    """
    place = JobPlace(str(store))
    if isinstance(place.folder, LocalFolder):
        check_target(place.folder.path, source)
    corpus, config, given = settle_pieces(source, config)
    job = describe_job(corpus.fingerprint, config, given)
    if corpus.classes is not None:
        digest = hashlib.sha256("\n".join(corpus.classes).encode())
        job["classes"] = digest.hexdigest()

    def make(place: JobPlace, config: TokenizeConfig) -> TokenizeResult | PartResult:
        with _lock(place, config):
            finished = _finished(place, job, corpus, config)
            if finished is not None:
                return finished
            try:
                return _Job(place, corpus, config, job, progress).run(given)
            except (SeitError, FileNotFoundError):
                finished = _finished_meanwhile(place, job, corpus, config)
                if finished is None:
                    raise
                return finished

    if not (config.overwrite and isinstance(place.folder, LocalFolder)):
        return make(place, config)
    if not holds_store(place.folder.path):
        return make(place, config)

    def make_whole(folder: Path, overwrite: bool) -> TokenizeResult:
        result = make(JobPlace(str(folder)), replace(config, overwrite=overwrite))
        assert isinstance(result, TokenizeResult), "a part never overwrites"
        return result

    return replace_store(place.folder.path, job, make_whole)


@contextmanager
def _lock(place: JobPlace, config: TokenizeConfig) -> Iterator[None]:
    """Lock a folder on a disk; in object storage, two drivers of a job write the same bytes."""
    name = LOCK_NAME if config.part is None else f"{LOCK_NAME}-{config.share[0]}"
    if not isinstance(place.folder, LocalFolder):
        yield
        return
    path = place.folder.path / JOB_FOLDER
    refuse_links(path)
    is_new = not place.folder.path.exists()
    lock = take_lock(path / name, busy=f"another job is writing {place}")
    try:
        yield
    finally:
        with suppress(OSError):
            if place.read_job() is None and config.part is None:
                shutil.rmtree(path, ignore_errors=True)
                if is_new:
                    place.folder.path.rmdir()
        os.close(lock)


class _BusyError(Exception):
    """Another part of the job is sealing the store."""


@contextmanager
def _sealing(place: JobPlace, config: TokenizeConfig) -> Iterator[None]:
    """Let one of the parts on a shared disk seal the store."""
    if config.part is None or not isinstance(place.folder, LocalFolder):
        yield
        return
    try:
        lock = take_lock(place.folder.path / JOB_FOLDER / LOCK_NAME, busy="another part seals")
    except SeitError as error:
        raise _BusyError from error
    try:
        yield
    finally:
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


def _finished_meanwhile(
    place: JobPlace, job: dict[str, Any], corpus: Pieces, config: TokenizeConfig
) -> TokenizeResult | None:
    """Return the result of a job that another driver finished while this one was at it, else None.

    Nothing is locked in object storage: what this one missed, or wrote too late, is of no use.
    """
    with suppress(SeitError):
        finished = _finished(place, job, corpus, config)
        if finished is not None:
            place.clean_up([record.file for record in open_store(place.folder).card.records])
        return finished
    return None


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

    def run(self, given: Tokenizer | None) -> TokenizeResult | PartResult:
        """Fit, make the missing pieces, revise them if needed, and seal the store.

        A part that is not the last to end leaves the seal to others.
        """
        self._begin()
        with make_reader(self.config) as reader:
            ready = self._ready(given, reader)
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
            with closing(Finished(len(self.corpus.pieces))) as records:
                made = self._make(work, records)
                seconds = time.perf_counter() - started
                left = len(records.missing)
                if left:
                    return self._part_result(made, left)
                try:
                    with _sealing(self.place, self.config):
                        return self._seal(work, records, ready, made / seconds if made else 0.0)
                except _BusyError:
                    return self._part_result(made, 0)

    def _seal(
        self, work: Work[Task, PieceRecord], records: Finished, ready: Ready, rate: float
    ) -> TokenizeResult:
        """Revise pieces if needed, and write what makes a store of them."""
        store = _finished(self.place, self.job, self.corpus, self.config)
        if store is not None:  # another part was quicker
            return store
        classes, warnings, sealed = self._settle(work, records, ready)
        card = seal_store(
            self.place,
            self.corpus,
            self.config,
            self.job,
            ready=ready,
            tokenizer=work.tokenizer,
            classes=classes,
            sealed=sealed,
        )
        self.place.clean_up([record.file for record in card.records])
        remarks = {name: count for name, (count, _) in sealed.remarks.counts.items()}
        warnings += label_warnings(self.corpus, classes, sealed)
        return result_of(Store(self.place.folder, card), rate, tuple(warnings), remarks=remarks)

    def _begin(self) -> None:
        """Begin the job or continue it.

        Raises:
            UsageError: the place holds another job or something else.
        """
        earlier = self.place.read_job()
        if earlier is not None and not self.config.overwrite:
            check_same_job(earlier, self.job, str(self.place))
        if earlier is None or not is_same_job(earlier, self.job):
            if self.config.overwrite:
                self.place.empty(but=f"{JOB_FOLDER}/{LOCK_NAME}")
            self.place.check_empty()
            if not self.place.claim(self.job):
                check_same_job(self.place.read_job() or {}, self.job, str(self.place))

    def _part_result(self, made: int, left: int) -> PartResult:
        number, count = self.config.share
        own = len(self.corpus.pieces[number::count])
        return PartResult(own, made, self.inputs_skipped, left)

    def _ready(self, given: Tokenizer | None, reader: Reader) -> Ready:
        """Return the outcome of the fit, which the first part makes for all."""
        ready = self.place.read_ready()
        if ready is None and self.config.share[0]:
            _LOG.info("waiting for part 0, which fits the tokenizer and the codec")
        deadline = time.monotonic() + FIT_SECONDS
        while ready is None and self.config.share[0]:
            if time.monotonic() > deadline:
                raise SeitError(
                    f"part 0 did not fit the codec at {self.place} within "
                    f"{FIT_SECONDS / 3600:.0f} hours; start it, or run this part again later"
                )
            time.sleep(_POLL_SECONDS)
            ready = self.place.read_ready()
        return ready or self._fit(given, reader)

    def _fit(self, given: Tokenizer | None, reader: Reader) -> Ready:
        _LOG.info("fitting to a sample of %s pieces", f"{len(self.corpus.pieces):,}")
        fit = fit_job(self.corpus, self.config, given, reader)
        self.place.write_fit(fit.tokenizer, fit.codec, fit.ready)
        return fit.ready

    def _make(self, work: Work[Task, PieceRecord], records: Finished) -> int:
        """Make the missing pieces of this part; return the number of samples made."""
        pieces = self.corpus.pieces
        part, parts = self.config.share
        self._read_finished(records, range(part, len(pieces), parts))
        missing = [number for number in records.missing if number % parts == part]
        left = f"{len(missing):,} of {len(pieces[part::parts]):,} pieces are left"
        _LOG.info("tokenizing with %s: %s", work.tokenizer.name, left)
        made = 0
        tasks: list[Task] = [PieceTask(number, pieces[number]) for number in missing]
        for place, record in choose_engine(self.config.engine)(work, tasks):
            self._keep(records, missing[place], record)
            made += record.samples
            if self.config.engine == "local":
                self._advance(1, len(record.skipped))
        if parts > 1:
            self._read_finished(records, records.missing)
        return made

    def _read_finished(self, records: Finished, numbers: Iterable[int]) -> None:
        """Read the records of those of the pieces that are finished."""
        done = self.place.finished()
        part, parts = self.config.share
        old = [number for number in numbers if record_name(number) in done]
        names = [record_name(number) for number in old]
        for number, record in zip(old, map_ahead(self.place.read_record, names), strict=True):
            if record is not None:
                self._keep(records, number, record)
                if number % parts == part:
                    self._advance(1, len(record.skipped))

    def _keep(self, records: Finished, number: int, record: PieceRecord) -> None:
        """Keep the record of a piece, which another call without ``strict`` may have made.

        Raises:
            SeitError: an input of it is unreadable and ``strict`` is set.
        """
        self._refuse(record.skipped)
        records[number] = record

    def _refuse(self, skipped: Iterable[tuple[str, str, str]]) -> None:
        """Refuse inputs (key, split, reason) that are left out if ``strict`` is set."""
        if self.config.strict:
            refuse_skipped([(key, reason) for key, _, reason in skipped])

    def _settle(
        self,
        work: Work[Task, PieceRecord],
        records: Finished,
        ready: Ready,
    ) -> tuple[tuple[str, ...], list[str], Sealed]:
        """Return the classes, warnings, and sums over all pieces, revised where needed."""
        warnings = []
        labels: dict[str, int] = {}
        if self.corpus.classes is None:
            classes, labels = settle_classes(records)
        else:
            classes = self.corpus.classes
        tokenizer = work.tokenizer
        layout = TokenLayout(grid=tokenizer.grid, num_codes=tokenizer.num_codes)
        codec = self.place.load_codec(layout, ready.codec)
        repeats = Repeats({}, 0, [])
        if self.corpus.reader.repeats:
            repeats = find_repeats(self.place, codec, records)
            self._refuse(repeats.disputed)
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
                shards = tuple(shard.record.sha256 for shard in record.shards)
                tasks.append(
                    RevisionTask(number, len(self.corpus.pieces), shards, changes, dropped)
                )
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
            part, parts = self.config.share
            total = len(self.corpus.pieces[part::parts])
            self.progress(self.pieces_done, total, self.inputs_skipped)

    def _count_none(self, _pieces: int, _skipped: int) -> None:
        """Ignore progress that is counted elsewhere."""
