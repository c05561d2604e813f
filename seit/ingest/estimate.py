"""Estimate of a job before it starts: counts, bytes and time from a small sample."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from seit.devices import choose_device
from seit.errors import SeitError
from seit.ingest.batches import ENCODE_BATCH
from seit.ingest.config import TokenizeConfig
from seit.ingest.fit import fit_tokenizer, make_reader, spread_evenly
from seit.ingest.inputs.reader import Reader
from seit.ingest.inputs.remarks import RemarkCounts
from seit.ingest.pieces.sample import fit_to_pieces
from seit.ingest.pieces.settle import first_inputs, mean_size, settle_pieces
from seit.ingest.settle import settle_job
from seit.ingest.sources import Instance
from seit.ingest.store_remarks import larger_remark
from seit.ingest.upload import refuse_workdir
from seit.ingest.workspace import check_target
from seit.outcomes import Outcome
from seit.shards import TokenLayout, is_url
from seit.tokenizers import Tokenizer, codebook_bytes, stored_tokenizer_bytes

SAMPLE = 2 * ENCODE_BATCH


@dataclass(frozen=True, repr=False)
class Estimate(Outcome):
    """Expected outcome of a job.

    Attributes:
        samples: listed instances, or windows of their audio, including unreadable ones.
        classes: number of classes.
        splits: instances per split.
        bytes: expected size of a packed store; the `context` codec makes it smaller.
        bytes_per_sample: `bytes` over `samples`.
        source_bytes_per_sample: mean bytes of the sampled files per sample.
        seconds: expected duration at the rate measured on a sample of the corpus.
        samples_per_second: measured instances per second, including decoding.
        unreadable_fraction: unreadable share of the sample, 0–1.
        warnings: one line each.
    """

    recorded = (
        *("dry_run", "samples", "classes", "splits", "bytes", "bytes_per_sample"),
        *("source_bytes_per_sample", "seconds", "samples_per_second", "unreadable_fraction"),
        "warnings",
    )
    dry_run = True

    samples: int
    classes: int
    splits: dict[str, int]
    bytes: int
    bytes_per_sample: float
    source_bytes_per_sample: float
    seconds: float
    samples_per_second: float
    unreadable_fraction: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Listed:
    """Corpus as far as an estimate needs it.

    Attributes:
        config: settings with the inputs resolved.
        tokenizer: tokenizer; None if it is to be fitted.
        fit: fits it.
        sample: some of the inputs.
        inputs: number of all inputs.
        classes: number of classes.
        splits: inputs per split.
        warnings: one line each.
    """

    config: TokenizeConfig
    tokenizer: Tokenizer | None
    fit: Callable[[Reader], Tokenizer]
    sample: list[Instance]
    inputs: int
    classes: int
    splits: dict[str, int]
    warnings: tuple[str, ...]


def _list(source: str | Path, config: TokenizeConfig) -> _Listed:
    corpus, config, given = settle_job(source, config)
    return _Listed(
        config=config,
        tokenizer=given,
        fit=lambda reader: fit_tokenizer(corpus, config, reader),
        sample=spread_evenly(corpus.instances, SAMPLE),
        inputs=len(corpus.instances),
        classes=len(corpus.classes),
        splits={split: len(entries) for split, entries in corpus.by_split().items()},
        warnings=corpus.warnings,
    )


def _sample_pieces(source: str | Path, config: TokenizeConfig) -> _Listed:
    """Look at the beginning of pieces; counts are estimated from it."""
    corpus, config, given = settle_pieces(source, config)
    first = list(first_inputs(corpus, config, SAMPLE))
    sample = [entry.instance for entry in first]
    inputs = corpus.expect_samples(mean_size(sample))
    found = Counter(instance.split for instance in sample)
    names = {entry.class_name for entry in first} - {None}
    remark = f"counts are estimated from {len(sample)} inputs; classes are those of them"
    return _Listed(
        config=config,
        tokenizer=given,
        fit=lambda reader: fit_to_pieces(corpus, config, reader),
        sample=sample,
        inputs=inputs,
        classes=len(names) if corpus.classes is None else len(corpus.classes),
        splits={split: round(inputs * count / len(sample)) for split, count in found.items()},
        warnings=(*corpus.warnings, remark),
    )


def estimate_job(source: str | Path, store: str | Path, config: TokenizeConfig) -> Estimate:
    """List the corpus, fit the tokenizer and time a sample, without writing anything.

    Raises:
        UsageError: invalid input, or ``store`` holds something else.
        SeitError: no input is readable.
    """
    refuse_workdir(store, config.workdir)
    if not is_url(str(store)):
        check_target(Path(store), source)
    device = choose_device(config.device)
    listed = _sample_pieces(source, config) if config.plan == "pieces" else _list(source, config)
    config, chosen = listed.config, listed.sample
    with make_reader(config) as reader:
        started = time.perf_counter()
        tokenizer = listed.tokenizer or listed.fit(reader)
        fit_seconds = time.perf_counter() - started
        tokenizer = tokenizer.to(device)
        started, reason = time.perf_counter(), ""
        remarks = RemarkCounts()
        pending: list[torch.Tensor] = []
        num_read = num_good = num_source_bytes = 0
        for entry in reader.read(chosen):
            for sentence in entry.remarks:
                remarks.add(sentence, entry.instance.key)
            num_read += bool(entry.samples)
            num_good += len(entry.samples)
            num_source_bytes += entry.num_bytes if entry.samples else 0
            reason = reason or entry.reason
            for sample in entry.samples:
                pending.append(torch.from_numpy(sample.values))
                if len(pending) == ENCODE_BATCH:
                    _encode(tokenizer, pending)
        _encode(tokenizer, pending)
        rate = len(chosen) / (time.perf_counter() - started)
    if not num_good:
        what = "an image" if config.modality == "image" else "audio"
        raise SeitError(
            f"none of {len(chosen)} sampled files of {source} can be read as {what} ({reason})"
        )
    layout = TokenLayout(grid=tokenizer.grid, num_codes=tokenizer.num_codes)
    unreadable = 1 - num_read / len(chosen)
    count = round(listed.inputs * num_good / num_read)
    key_bytes = sum(len(entry.key.encode()) for entry in chosen) / len(chosen)
    carried = stored_tokenizer_bytes(tokenizer, embed=config.embed_tokenizer)
    weights = len(codebook_bytes(tokenizer)) + len(carried)
    token_bytes = round(count * (1 - unreadable) * (layout.sample_bytes + key_bytes / 3))
    num_bytes = token_bytes + weights
    source_bytes = num_source_bytes / num_good
    remark = larger_remark(
        num_bytes=num_bytes,
        token_bytes=token_bytes,
        source_bytes=source_bytes * count * (1 - unreadable),
        tokenizer=tokenizer.name,
        size=config.size,
    )
    return Estimate(
        samples=count,
        classes=listed.classes,
        splits=listed.splits,
        bytes=num_bytes,
        bytes_per_sample=num_bytes / count,
        source_bytes_per_sample=source_bytes,
        seconds=fit_seconds + listed.inputs / rate,
        samples_per_second=rate,
        unreadable_fraction=unreadable,
        warnings=(
            *listed.warnings,
            *remarks.warnings(),
            *(() if remark is None else (remark,)),
        ),
    )


def _encode(tokenizer: Tokenizer, pending: list[torch.Tensor]) -> None:
    """Tokenize and clear the pending inputs, for timing only."""
    if pending:
        with torch.inference_mode():
            tokenizer.encode(torch.stack(pending))
    pending.clear()
