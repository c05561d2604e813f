"""Footprint of a network, as `seit footprint --json` prints it."""

from collections.abc import Mapping
from dataclasses import dataclass

from seit.compression.footprint.clock import Latency
from seit.outcomes import Outcome
from seit.training import LayerFootprint


@dataclass(frozen=True, kw_only=True, repr=False)
class FootprintResult(Outcome):
    """Footprint of a run, an ONNX file or a tokenizer.

    Attributes:
        name: what was measured, in words.
        runtime: what ran it.
        parameters, nonzero_parameters, bytes, bytes_by_dtype, flops, bops: see
            `seit.training.Footprint`.
        peak_memory_bytes: resident memory that loading and running added at the peak, over all
            batch sizes: ``peak_rss_bytes`` − ``rss_before_bytes``.
        rss_before_bytes: resident memory before loading, with all modules imported.
        rss_after_bytes: resident memory after the last batch.
        peak_rss_bytes: largest resident memory of the process from the loading on.
        cold_start_seconds: from the start of the process to the first result.
        latency_ms: times of a batch by its size, in milliseconds.
        samples_per_second: rate at the largest batch size, from its median.
        energy_proxy: energy of a sample relative to float32; None without ``flops``.
        energy_formula: its formula.
        joules_per_sample: energy of the processor's packages at the largest batch size; None
            where it has no counters.
        cpu: the processor, and its instructions for 8-bit integers.
        threads: threads of an operator.
        versions: versions of what ran.
        layers: layers with parameters or operations of their own.
    """

    name: str
    runtime: str
    parameters: int
    nonzero_parameters: int
    bytes: int
    bytes_by_dtype: Mapping[str, int]
    flops: int | None
    bops: int | None
    peak_memory_bytes: int
    rss_before_bytes: int
    rss_after_bytes: int
    peak_rss_bytes: int
    cold_start_seconds: float
    latency_ms: Mapping[str, Latency]
    samples_per_second: float
    energy_proxy: float | None
    energy_formula: str
    joules_per_sample: float | None
    cpu: Mapping[str, object]
    threads: int
    versions: Mapping[str, str]
    layers: tuple[LayerFootprint, ...]
