"""`seit footprint`: what a network takes, beside its accuracy."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seit.compression.footprint.clock import Latency
from seit.compression.footprint.energy import FORMULA, relative_energy
from seit.compression.footprint.machine import processor, versions
from seit.compression.footprint.measure import measure_apart
from seit.compression.footprint.memory import Memory
from seit.compression.footprint.page import write_footprint_page
from seit.compression.footprint.result import FootprintResult
from seit.compression.footprint.targets.base import Counts
from seit.compression.footprint.targets.registry import open_target
from seit.documents import as_record
from seit.errors import SeitError, UsageError
from seit.files import check_new_file

BATCH_SIZES = (1, 64)
SECONDS = 2.0
_SHORT_SECONDS = 1.0
_LOG = logging.getLogger(__name__)
_MAX_BATCH = 1 << 16
_MAX_SECONDS = 3600
_MAX_THREADS = 1024


def measure_footprint(
    path: str | Path,
    *,
    batch_size: Sequence[int] = BATCH_SIZES,
    threads: int = 1,
    seconds: float = SECONDS,
    out: str | Path | None = None,
) -> FootprintResult:
    """Measure a finished run, an ONNX file or a tokenizer in a fresh process on the CPU.

    Args:
        path: a run's folder, an .onnx file, or a tokenizer's file or name. A run is measured from
            stored ids to logits, or to features; a tokenizer from pixels or waveforms to ids.
        batch_size: batch sizes.
        threads: threads of an operator.
        seconds: time to spend on each batch size.
        out: a new HTML file.

    Raises:
        UsageError: there is nothing that can be measured, or a setting is out of range.
        SeitError: a file is damaged, or the measurement failed.
    """
    sizes = sorted(set(batch_size))
    _check(sizes, threads, seconds)
    if out is not None:
        check_new_file(Path(out))
    target = open_target(path)
    found = measure_apart(
        target.kind, target.path, batch_sizes=sizes, threads=threads, seconds=seconds
    )
    result = _result(found, threads)
    if out is not None:
        write_footprint_page(Path(out), result, title=f"Footprint of {Path(path).name}")
    return result


def measured(path: Path) -> dict[str, Any]:
    """Return the figures of a finished file that a `CompressResult` holds, by name.

    A file that cannot be measured is logged, and has none.
    """
    try:
        found = measure_footprint(path, seconds=_SHORT_SECONDS)
    except SeitError as error:
        _LOG.warning("%s was not measured: %s", path, error)
        return {}
    names = ("flops", "peak_memory_bytes", "latency_ms")
    return {name: getattr(found, name) for name in names}


def _result(found: dict[str, Any], threads: int) -> FootprintResult:
    counts = as_record(found["counts"], Counts, origin="the counts")
    memory = as_record(found["memory"], Memory, origin="the memory")
    latency = as_record(found["latency_ms"], dict[str, Latency], origin="the times")
    largest = max(latency, key=int)
    whole = counts.whole
    return FootprintResult(
        name=counts.name,
        runtime=counts.runtime,
        **vars(whole),
        peak_memory_bytes=memory.added,
        rss_before_bytes=memory.before,
        rss_after_bytes=memory.after,
        peak_rss_bytes=memory.peak,
        cold_start_seconds=found["cold_start_seconds"],
        latency_ms=latency,
        samples_per_second=1000 * int(largest) / latency[largest].p50,
        energy_proxy=relative_energy(counts.layers, num_bytes=whole.bytes),
        energy_formula=FORMULA,
        joules_per_sample=found["joules_per_sample"],
        cpu=processor(),
        threads=threads,
        versions=versions(),
        layers=counts.layers,
    )


def _check(sizes: Sequence[int], threads: int, seconds: float) -> None:
    if not sizes or not all(1 <= size <= _MAX_BATCH for size in sizes):
        raise UsageError(
            f"--batch-size is {' '.join(map(str, sizes)) or 'empty'}; sizes go from 1 to "
            f"{_MAX_BATCH:,}"
        )
    if not 1 <= threads <= _MAX_THREADS:
        raise UsageError(f"--threads is {threads}; it must be from 1 to {_MAX_THREADS:,}")
    if not 0 < seconds <= _MAX_SECONDS:
        raise UsageError(f"--seconds is {seconds}; it is above 0 and at most {_MAX_SECONDS:,}")
