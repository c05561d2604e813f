"""What a job would do, before it is started: counts, bytes and time from a small sample."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from seit.devices import choose_device
from seit.errors import SeitError
from seit.shards import TokenLayout
from seit.shards.folders import is_url
from seit.tokenize.config import TokenizeConfig
from seit.tokenize.fit import fit_tokenizer, make_reader, spread_evenly
from seit.tokenize.making import ENCODE_BATCH
from seit.tokenize.remarks import larger_remark
from seit.tokenize.settle import settle_job
from seit.tokenize.workspace import check_target

SAMPLE = 2 * ENCODE_BATCH


@dataclass(frozen=True)
class Estimate:
    """What a job is expected to do.

    Attributes:
        samples: instances listed, or windows that their audio makes; those that turn out
            unreadable are skipped.
        classes: classes found.
        splits: instances by split.
        bytes: expected size of the store when packed; the `context` codec makes it smaller.
        bytes_per_sample: `bytes` over `samples`.
        source_bytes_per_sample: mean size of the sampled files, over the samples of each.
        seconds: expected duration at the rate measured on a sample of the corpus.
        samples_per_second: that rate in instances, decode included.
        unreadable_fraction: share of the sample that could not be read, 0–1.
        warnings: one line each.
    """

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


def estimate(source: str | Path, store: str | Path, config: TokenizeConfig) -> Estimate:
    """List the corpus, fit the tokenizer, time a sample; nothing is written.

    Raises:
        UsageError: wrong input, or ``store`` holds something else.
        SeitError: no input is readable.
    """
    if not is_url(str(store)):
        check_target(Path(store), source)
    device = choose_device(config.device)
    corpus, config, given = settle_job(source, config)
    with make_reader(config) as reader:
        started = time.perf_counter()
        tokenizer = given or fit_tokenizer(corpus, config, reader)
        fit_seconds = time.perf_counter() - started
        tokenizer = tokenizer.to(device)
        chosen = spread_evenly(corpus.instances, SAMPLE)
        started = time.perf_counter()
        read = [entry for entry in reader.read(chosen) if entry.samples]
        good = [sample.values for entry in read for sample in entry.samples]
        with torch.inference_mode():
            for start in range(0, len(good), ENCODE_BATCH):
                batch = [torch.from_numpy(array) for array in good[start : start + ENCODE_BATCH]]
                tokenizer.encode(torch.stack(batch))
        rate = len(chosen) / (time.perf_counter() - started)
    if not good:
        what = "an image" if config.modality == "image" else "audio"
        raise SeitError(f"none of {len(chosen)} sampled files of {source} can be read as {what}")
    layout = TokenLayout(grid=tokenizer.grid, num_codes=tokenizer.num_codes)
    unreadable = 1 - len(read) / len(chosen)
    count = round(len(corpus.instances) * len(good) / len(read))
    key_bytes = sum(len(entry.key.encode()) for entry in chosen) / len(chosen)
    weights = tokenizer.codebook.nbytes + sum(t.nbytes for t in tokenizer.tensors().values())
    token_bytes = round(count * (1 - unreadable) * (layout.sample_bytes + key_bytes / 3))
    num_bytes = token_bytes + weights
    source_bytes = sum(entry.num_bytes for entry in read) / len(good)
    remark = larger_remark(
        num_bytes=num_bytes,
        token_bytes=token_bytes,
        source_bytes=source_bytes * count * (1 - unreadable),
        tokenizer=tokenizer.name,
        size=config.size,
    )
    return Estimate(
        samples=count,
        classes=len(corpus.classes),
        splits={split: len(entries) for split, entries in corpus.by_split().items()},
        bytes=num_bytes,
        bytes_per_sample=num_bytes / count,
        source_bytes_per_sample=source_bytes,
        seconds=fit_seconds + len(corpus.instances) / rate,
        samples_per_second=rate,
        unreadable_fraction=unreadable,
        warnings=corpus.warnings if remark is None else (*corpus.warnings, remark),
    )
