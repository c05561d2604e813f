"""End of a compression run: figures of the file that was written, and the report."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from seit.compression.footprint.start import measured
from seit.compression.footprint.targets.runs import RunTarget
from seit.compression.method import Findings
from seit.compression.result import CompressResult
from seit.compression.subject import Subject
from seit.documents import as_record
from seit.models import count_parameters
from seit.report import Section, table
from seit.training import (
    FINISHED,
    FOOTPRINT,
    WEIGHTS_NAME,
    Evaluation,
    Run,
    confusion_record,
    environment,
    evaluate_run,
    write_predictions,
    write_run_report,
)


def recorded(figures: Mapping[str, Any], out: Path) -> CompressResult:
    """Return the result of a finished run, as in its `run.json`.

    Raises:
        DamagedError: it is invalid.
    """
    return as_record(figures, CompressResult, origin=f"the result in {out}")


def finish(run: Run, subject: Subject, findings: Findings, *, started: float) -> CompressResult:
    """Evaluate the files of a run, write what is missing, and mark it as finished.

    Args:
        run: the run, with its weights.
        subject: the run that was compressed.
        findings: what the method found.
        started: when the call started, by `time.perf_counter`.
    """
    split = subject.config.data.val_split
    before = evaluate_run(subject.run.path, subject.store, split=split, device=str(subject.device))
    deployed = findings.deployment
    after = evaluate_run(run.path, subject.store, split=split, device=str(subject.device))
    counted = {FOOTPRINT: vars(RunTarget(run.path).counts().whole)}
    figures: dict[str, Any] = {**after.metrics(), "flops": counted[FOOTPRINT]["flops"]}
    if subject.config.compression.measure:
        figures |= measured(run.path)
    result = CompressResult(
        **figures,
        steps=0,
        samples_per_second=0.0,
        data_wait_fraction=0.0,
        seconds=time.perf_counter() - started,
        parameters=count_parameters(subject.model.requires_grad_(True)),
        val_samples=after.samples,
        speed=findings.speed,
        **compared(
            subject,
            before,
            after,
            num_bytes=(run.path / (deployed.name if deployed else WEIGHTS_NAME)).stat().st_size,
            bytes_before=deployed.bytes_before if deployed else None,
        ),
    )
    write_predictions(run, after.predictions, after.labels, after.likeliest)
    info = {
        **run.info,
        "result": asdict(result),
        "environment": environment(subject.device),
        **confusion_record(after.confusion),
        "warnings": [],
        **counted,
        **findings.notes,
    }
    sections = (comparison(result), *findings.sections)
    write_run_report(run, info=info, store=subject.store, sections=sections)
    run.write_info({**info, "status": FINISHED})
    return result


def compared(
    subject: Subject,
    before: Evaluation,
    after: Evaluation,
    *,
    num_bytes: int,
    bytes_before: int | None = None,
) -> dict[str, Any]:
    """Return the fields of a `CompressResult` that compare the run with what was made of it.

    Args:
        subject: the run that was compressed.
        before: its evaluation.
        after: that of the compressed one, on the same samples.
        num_bytes: size of the file that is deployed.
        bytes_before: size of the same kind of file of the run that was compressed; that of its
            weights by default.
    """
    weights = subject.run.path / WEIGHTS_NAME
    return {
        "method": subject.config.compression.method,
        "top1_before": before.top1,
        "agreement": agreement(before, after),
        "bytes": num_bytes,
        "bytes_before": weights.stat().st_size if bytes_before is None else bytes_before,
    }


def agreement(before: Evaluation, after: Evaluation) -> float:
    """Return the share of labeled samples for which both predict the same class, 0–1."""
    known = before.labels >= 0
    return float(np.mean(before.predictions[known] == after.predictions[known]))


def comparison(result: CompressResult) -> Section:
    """Return the report section on the figures before and after."""
    rows = [
        ["top-1", f"{result.top1_before:.2%}", f"{result.top1:.2%}"],
        ["bytes", f"{result.bytes_before:,}", f"{result.bytes:,}"],
        ["same predictions", "", f"{result.agreement:.2%}"],
        *(
            [f"batch of {size}, one thread", "", f"{one.p50:.3g} ms"]
            for size, one in (result.latency_ms or {}).items()
        ),
    ]
    return Section("Before and after", table(rows, header=["", "before", "after"]))
