"""Result of a compression run."""

from collections.abc import Mapping
from dataclasses import dataclass

from seit.compression.footprint.clock import Latency
from seit.training import TrainResult


@dataclass(frozen=True, kw_only=True, repr=False)
class CompressResult(TrainResult):
    """Result of a compression run: figures of the file that is deployed, in its runtime.

    Attributes:
        method: method of compression.
        top1_before: accuracy of the run that was compressed, on the same samples, 0–1.
        agreement: share of samples for which both predict the same class, 0–1.
        bytes: size of the file that is deployed.
        bytes_before: size of the same kind of file of the run that was compressed.
        flops: operations of a forward pass of one sample; None if they are unknown.
        peak_memory_bytes: memory that loading and running it adds at the peak, at batch size 64;
            None if it was not measured.
        latency_ms: times of a batch on one thread by its size, 1 and 64, in milliseconds; None if
            it was not measured.
        speed: by batch size, what was measured against float32 in alternating rounds of one
            process: "faster" than each float32 runtime, "slower" than one of them, or "not faster".
            None for methods that do not change the runtime, which are not compared.
    """

    method: str
    top1_before: float
    agreement: float
    bytes: int
    bytes_before: int
    flops: int | None = None
    peak_memory_bytes: int | None = None
    latency_ms: Mapping[str, Latency] | None = None
    speed: Mapping[str, str] | None = None
