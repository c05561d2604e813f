"""Offline job: SRC → tokenizer → shards → card, resumable after a kill at any moment.

Shards are written one by one under temporary names, and the card last. However often it is killed,
a job ends with the same bytes as an uninterrupted one on the same machine.

Legend: B encode batch, S image side, H W token grid.
"""

import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from seit.devices import choose_device
from seit.errors import SeitError
from seit.ingest.config import TokenizeConfig
from seit.ingest.description import (
    check_same_job,
    describe_job,
    describe_tokenizer,
    is_same_job,
)
from seit.ingest.engines.base import Engine, Work
from seit.ingest.engines.registry import choose_engine
from seit.ingest.engines.shards import ShardPlant
from seit.ingest.fit import fit_tokenizer, make_reader, measure
from seit.ingest.input_list import INPUTS_NAME, list_inputs
from seit.ingest.inputs.reader import Reader
from seit.ingest.inputs.remarks import RemarkCounts
from seit.ingest.pieces.job import tokenize_pieces
from seit.ingest.plan import ShardPlan, plan_shards
from seit.ingest.replace import check_sizes, holds_store, is_made, replace_store
from seit.ingest.resolve import with_own_backbone
from seit.ingest.result import PartResult, TokenizeResult, result_of
from seit.ingest.settle import settle_job
from seit.ingest.shard import refuse_skipped
from seit.ingest.sources import Corpus
from seit.ingest.sources.corpus import shown
from seit.ingest.sources.media import NOUNS
from seit.ingest.store_remarks import class_remarks
from seit.ingest.upload import find_remote, refuse_workdir, staging_folder, upload
from seit.ingest.workspace import DoneShard, Workspace, check_target
from seit.numbers import counted
from seit.shards import (
    BLOCK_SAMPLES,
    CARD_NAME,
    CODEBOOK_NAME,
    SKIPPED_NAME,
    TOKENIZER_NAME,
    Card,
    PackedCodec,
    Store,
    is_url,
    open_store,
    write_index,
    write_listed,
)
from seit.stores import CONTAINERS, recode_store
from seit.tokenizers import (
    Tokenizer,
    codebook_bytes,
    load_tokenizer,
    stored_tokenizer_bytes,
)

_LOG = logging.getLogger(__name__)
JobProgress = Callable[[int, int, int], None]
"""Callback that receives (inputs done, total inputs, inputs skipped)."""


def tokenize(
    source: str | Path,
    store: str | Path,
    config: TokenizeConfig | None = None,
    *,
    progress: JobProgress | None = None,
) -> TokenizeResult | PartResult:
    """Tokenize the corpus at ``source`` into a store at ``store``; resumes an interrupted job.

    Both are paths or URLs. A store at a URL is built in ``config.workdir`` first.

    Raises:
        UsageError: invalid input, or ``store`` holds something else; nothing was changed.
        SeitError: the disk is full, an input is unreadable and ``strict`` is set, or no input is
            readable. Finished shards are kept for the next call.
    """
    config = config or TokenizeConfig()
    if config.plan == "pieces":
        return tokenize_pieces(source, store, config, progress=progress)
    is_remote = is_url(str(store))
    if not is_remote:
        refuse_workdir(store, config.workdir)
    try:
        if is_remote:
            return _tokenize_to_url(source, str(store), config, progress)
        return _tokenize_to_folder(source, Path(store), config, progress)
    except NothingReadableError as error:
        raise SeitError(str(error)) from None


def _tokenize_to_folder(
    source: str | Path, store: Path, config: TokenizeConfig, progress: JobProgress | None
) -> TokenizeResult:
    check_target(store, source)
    corpus, config, given = settle_job(source, config)
    if not (config.overwrite and holds_store(store)):
        return tokenize_corpus(corpus, store, config, given, progress=progress)

    def make(folder: Path, overwrite: bool) -> TokenizeResult:
        settings = replace(config, overwrite=overwrite)
        return tokenize_corpus(corpus, folder, settings, given, progress=progress)

    return replace_store(store, describe_job(corpus.fingerprint, config, given), make)


def tokenize_corpus(
    corpus: Corpus,
    store: Path,
    config: TokenizeConfig,
    given: Tokenizer | None,
    *,
    progress: JobProgress | None = None,
) -> TokenizeResult:
    """Tokenize a listed corpus as `tokenize` does, with a resolved config and tokenizer.

    Raises:
        NothingReadableError: no input is readable.
        UsageError, SeitError: as in `tokenize`.
    """
    device = choose_device(config.device) if config.engine == "local" else torch.device("cpu")
    engine = choose_engine(config.engine)
    job = describe_job(corpus.fingerprint, config, given)
    workspace = Workspace(store, staged=(config.codec, config.container) != ("packed", "wds"))
    if (store / CARD_NAME).is_file() and not config.overwrite:
        return _finished(workspace, job, corpus, config)
    with workspace.locked(), make_reader(config) as reader:
        has_card = (store / CARD_NAME).is_file()
        if has_card and not config.overwrite:  # another job finished during the listing
            return _finished(workspace, job, corpus, config)
        earlier = workspace.read_job()
        replace = workspace.is_replacing or (
            config.overwrite
            and (has_card or (earlier is not None and not is_same_job(earlier, job)))
        )
        if earlier is None or replace:
            if given is None:
                _LOG.info("fitting %s, %s codes", config.tokenizer, f"{config.fitted_codes:,}")
            tokenizer = given or fit_tokenizer(corpus, config, reader)
            workspace.begin(job, tokenizer, replace=replace)
        else:
            check_same_job(earlier, job, store)
        # Reload even a just fitted tokenizer, so that a resumed job encodes with identical weights.
        tokenizer = with_own_backbone(load_tokenizer(workspace.tokenizer_path), config).to(device)
        run = _Run(config, corpus, tokenizer, workspace, reader, progress)
        return run.finish(engine, job)


def _tokenize_to_url(
    source: str | Path, url: str, config: TokenizeConfig, progress: JobProgress | None
) -> TokenizeResult:
    staging = staging_folder(url, config.workdir)
    found = find_remote(url, staging, overwrite=config.overwrite)
    if not found:
        check_target(staging, source)
    corpus, config, given = settle_job(source, config)
    job = describe_job(corpus.fingerprint, config, given)
    if found:
        check_same_job(dict(found.card.job), job, url)
        return result_of(found, 0.0, corpus.warnings)
    overwrite = config.overwrite and not is_made(staging, job)  # killed during the upload
    settings = replace(config, overwrite=overwrite)
    result = tokenize_corpus(corpus, staging, settings, given, progress=progress)
    upload(staging, url)
    return result


class NothingReadableError(SeitError):
    """Error of a job without readable inputs; ``skipped`` has the lines of `skipped.jsonl`."""

    def __init__(self, message: str, skipped: list[bytes]) -> None:
        super().__init__(message)
        self.skipped = skipped


class _Run:
    """One call of the job with a ready tokenizer."""

    def __init__(
        self,
        config: TokenizeConfig,
        corpus: Corpus,
        tokenizer: Tokenizer,
        workspace: Workspace,
        reader: Reader,
        progress: JobProgress | None,
    ) -> None:
        self.config = config
        self.corpus = corpus
        self.tokenizer = tokenizer
        self.workspace = workspace
        self.reader = reader
        self.progress = progress
        self.inputs_done = 0
        self.inputs_skipped = 0

    def finish(self, engine: Engine, job: dict[str, Any]) -> TokenizeResult:
        """Make the missing shards, then seal the store."""
        started = time.perf_counter()
        made = 0
        plans = list(plan_shards(self.corpus, shard_samples=self.config.shard_samples))
        records = [self.workspace.read_done(plan) for plan in plans]
        missing = [number for number, record in enumerate(records) if record is None]
        for plan, record in zip(plans, records, strict=True):
            if record is not None:
                if self.config.strict:
                    refuse_skipped(record.skipped)
                self._advance(plan.num_inputs, len(record.skipped))
        shards = f"{len(missing):,} of {len(plans):,} shards are left"
        _LOG.info("tokenizing with %s: %s", self.tokenizer.name, shards)
        work = Work(
            config=self.config,
            plant=ShardPlant(self.workspace),
            tokenizer=self.tokenizer,
            reader=self.reader,
            advance=self._advance,
        )
        for number, record in engine(work, [plans[number] for number in missing]):
            records[missing[number]] = record
            made += record.shard.samples if record.shard else 0
        done = [
            (plan, record)
            for plan, record in zip(plans, records, strict=True)
            if record is not None
        ]
        assert len(done) == len(plans), "an engine makes all shards that it is given"
        seconds = time.perf_counter() - started
        if not any(record.shard for _, record in done):
            self.workspace.abandon()
            noun = NOUNS[self.config.modality][0]
            key, reason = next(entry for _, record in done for entry in record.skipped)
            raise NothingReadableError(
                f"no {noun} of {self.corpus.source} could be read; no store was made "
                f"({shown(key)}: {reason})",
                _skipped_lines(done),
            )
        _LOG.info("measuring the tokenizer and sealing the store")
        card = self._seal(done, job)
        self.workspace.remove()
        store = Store(self.workspace.store, card)
        noun = NOUNS[self.config.modality][0]
        remarks = RemarkCounts()
        for _, record in done:
            remarks.merge(record.remarks)
        empty = class_remarks(self.corpus, done, noun)
        warnings = (*self.corpus.warnings, *empty, *remarks.warnings())
        counts = {sentence: count for sentence, (count, _) in remarks.counts.items()}
        return result_of(store, made / seconds if made else 0.0, warnings, remarks=counts)

    def _seal(self, done: list[tuple[ShardPlan, DoneShard]], job: dict[str, Any]) -> Card:
        store = self.workspace.shards
        files = {
            CODEBOOK_NAME: codebook_bytes(self.tokenizer),
            TOKENIZER_NAME: stored_tokenizer_bytes(
                self.tokenizer, embed=self.config.embed_tokenizer
            ),
            SKIPPED_NAME: b"".join(_skipped_lines(done)),
            INPUTS_NAME: list_inputs(self.corpus),
        }
        listed = write_listed(store, files)
        splits = {
            split: tuple(
                record.shard for plan, record in done if plan.split == split and record.shard
            )
            for split in dict.fromkeys(plan.split for plan, _ in done)
        }
        indexes = [write_index(store, split, shards) for split, shards in splits.items() if shards]
        card = Card(
            tokenizer=describe_tokenizer(self.tokenizer),
            codec=PackedCodec.name,
            container=CONTAINERS[0],
            block_samples=BLOCK_SAMPLES,
            classes=self.corpus.classes,
            splits=splits,
            files=(*listed, *indexes),
            skipped=sum(len(record.skipped) for _, record in done),
            job=job,
            quality=self._quality(),
            source_bytes=sum(record.source_bytes for _, record in done),
        )
        card.write(store)
        if not self.workspace.staged:
            return card
        return recode_store(
            open_store(store),
            self.workspace.store,
            codec=self.config.codec,
            container=self.config.container,
        )

    def _quality(self) -> dict[str, float]:
        quality = measure(self.tokenizer, self.corpus, self.reader)
        return {key: round(value, 4) for key, value in asdict(quality).items()}

    def _advance(self, inputs: int, skipped: int) -> None:
        self.inputs_done += inputs
        self.inputs_skipped += skipped
        if self.progress:
            self.progress(self.inputs_done, len(self.corpus.instances), self.inputs_skipped)


def _skipped_lines(done: list[tuple[ShardPlan, DoneShard]]) -> list[bytes]:
    entries = (
        {"key": key, "split": plan.split, "reason": reason}
        for plan, record in done
        for key, reason in record.skipped
    )
    return [json.dumps(entry, ensure_ascii=False).encode() + b"\n" for entry in entries]


def _finished(
    workspace: Workspace, job: dict[str, Any], corpus: Corpus, config: TokenizeConfig
) -> TokenizeResult:
    """Return the result of a finished job, and clean up after it."""
    store = open_store(workspace.store)
    check_same_job(dict(store.card.job), job, store.path)
    check_sizes(store)
    if config.strict and store.card.skipped:
        raise SeitError(
            f"{store.path} is complete but lacks {counted(store.card.skipped, 'input')} that could "
            f"not be read; {SKIPPED_NAME} says why"
        )
    if workspace.path.is_dir():  # the job was killed after writing the card
        with suppress(SeitError), workspace.locked():
            workspace.remove()
    return result_of(store, 0.0, corpus.warnings)
