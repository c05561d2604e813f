"""Several methods of compression on one run, with several seeds each.

A folder of methods holds a folder of seeds for each, `methods.json` and `report.html`.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from seit.compression.compare.page import write_methods_page
from seit.compression.compare.rows import (
    SOURCE,
    MethodRow,
    MethodsComparison,
    largest_ms,
    method_row,
    with_fronts,
)
from seit.compression.config import CompressConfig, MethodName
from seit.compression.footprint.clock import Latency
from seit.compression.footprint.start import measured
from seit.compression.footprint.targets.runs import RunTarget
from seit.compression.result import CompressResult
from seit.compression.settings import refuse_unused, settings_of
from seit.compression.start import compress
from seit.documents import as_record, read_json
from seit.errors import UsageError
from seit.files import write_atomically
from seit.locks import RUN_LOCK_NAME, locked_folder
from seit.processes import world_size
from seit.progress import Progress
from seit.shards import Store, as_store
from seit.training import (
    MAX_RECORD_BYTES,
    Run,
    SeedsResult,
    Spread,
    counting,
    folder_of,
    repeat,
    starting_from,
)

METHODS_NAME = "methods.json"
SOURCE_NAME = "source.json"
"""File of the times of the run that was compressed."""
_LOG = logging.getLogger(__name__)


def compress_methods(
    config: CompressConfig,
    store: Store | str | Path,
    *,
    out: str | Path,
    methods: Sequence[MethodName],
    seeds: int = 1,
    skip_unfit: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> MethodsComparison:
    """Compress a run by several methods, one after the other, and compare them.

    Args:
        config: settings of the runs; its method is ignored. A method has the settings that it
            takes, and the others' defaults.
        store: an open store or its path.
        out: a new folder; the run of the method `w4` and seed 3 goes to its `w4/seed-3`.
        methods: names of the methods.
        seeds: number of seeds of each method, at least 1.
        skip_unfit: skip methods that refuse the run or its settings instead of raising the error.
        resume: continue the interrupted runs at ``out``, or add methods or seeds to them.
        progress: called after each step.

    Raises:
        UsageError: settings, store and folder do not fit together, or a method does not fit.
        SeitError: as for :func:`seit.compression.compress`.
    """
    if world_size() > 1:
        raise UsageError(
            f"a comparison of methods or seeds takes one process, and torchrun started "
            f"{world_size()}; call it without torchrun, or compress by one method and seed"
        )
    store = as_store(store)
    out = Path(out)
    if len(set(methods)) < len(methods) or not methods:
        raise UsageError(f"--method is {','.join(methods) or 'empty'}; name each method once")
    if config.init_from is None:
        raise UsageError("no run is named; name the finished run to compress")
    refuse_unused(config, methods)
    source = Run.open(config.init_from)
    _check_folder(out, resume=resume)
    found: dict[MethodName, SeedsResult[CompressResult]] = {}
    skipped: dict[str, str] = {}
    with locked_folder(out):
        for index, method in enumerate(methods):
            _LOG.info("method %s, %d of %d", method, index + 1, len(methods))
            own = settings_of(config, method, model=source.settings.model)
            try:
                found[method] = repeat(
                    _compress,
                    own,
                    store,
                    out / method,
                    seeds=seeds,
                    resume=True,
                    init_from=None,
                    progress=counting(progress, index, len(methods)),
                )
            except UsageError as error:
                if not skip_unfit or any((out / method).glob("seed-*")):
                    raise
                _LOG.warning("%s is left out: %s", method, error)
                skipped[method] = str(error)
        if not found:
            raise UsageError(next(iter(skipped.values())))
        result = _compare(found, skipped, source, out, is_measured=config.compression.measure)
        text = json.dumps(result.record(), indent=2)
        write_atomically(out / METHODS_NAME, text.encode() + b"\n")
        write_methods_page(out, config, result)
    return result


def _compress(
    config: CompressConfig,
    store: Store,
    *,
    out: Path,
    resume: bool,
    init_from: str | Path | None,
    progress: Progress | None,
) -> CompressResult:
    own = starting_from(config, init_from)
    return compress(own, store, out=out, resume=resume, progress=progress)


def _check_folder(out: Path, *, resume: bool) -> None:
    others = out.is_dir() and {path.name for path in out.iterdir()} - {RUN_LOCK_NAME}
    if not resume and (others or (out.exists() and not out.is_dir())):
        raise UsageError(
            f"{out} already holds something; pass --resume to continue runs there, or choose a "
            "new --out folder"
        )


def _compare(
    found: Mapping[MethodName, SeedsResult[CompressResult]],
    skipped: Mapping[str, str],
    source: Run,
    out: Path,
    *,
    is_measured: bool,
) -> MethodsComparison:
    rows = [
        method_row(
            method,
            one,
            source=source,
            runs=[folder_of(out / method, seed) for seed in one.results],
        )
        for method, one in found.items()
    ]
    latency = _source_latency(source, out) if is_measured else None
    first = next(iter(rows[0].results.values()))
    before = _source_row(source, latency, top1=first.top1_before)
    (before, *rows), fronts = with_fronts([before, *rows])
    return MethodsComparison(source=before, rows=tuple(rows), skipped=skipped, fronts=fronts)


def _source_row(source: Run, latency: Mapping[str, Latency] | None, *, top1: float) -> MethodRow:
    """Return the row of the run that was compressed, with its accuracy ``top1``."""
    counted = RunTarget(source.path).counts().whole
    return MethodRow(
        method=SOURCE,
        bytes=Spread.of([float(counted.bytes)]),
        latency_ms=Spread.of([largest_ms(latency)]) if latency else None,
        flops=None if counted.flops is None else Spread.of([float(counted.flops)]),
        top1=Spread.of([top1]),
        agreement=Spread.of([1.0]),
        seconds=Spread.of([0.0]),
        difference=0.0,
        difference_se=None,
        p_value=None,
        results={},
    )


def _source_latency(source: Run, out: Path) -> Mapping[str, Latency] | None:
    """Return the times of the source, measured once for the folder."""
    path = out / SOURCE_NAME
    if path.is_file():
        found = read_json(path, dict, max_bytes=MAX_RECORD_BYTES)
        return as_record(found, dict[str, Latency], origin=str(path))
    latency: Mapping[str, Latency] | None = measured(source.path).get("latency_ms")
    if latency:
        body = {size: vars(one) for size, one in latency.items()}
        write_atomically(path, json.dumps(body, indent=2).encode() + b"\n")
    return latency
