"""`seit footprint RUN|ONNX|TOKENIZER`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from seit.cli.integers import Integer
from seit.cli.output import print_result, print_table, say
from seit.numbers import human_bytes

if TYPE_CHECKING:
    from seit.compression import FootprintResult


def command(
    path: str,
    /,
    *,
    batch_size: Annotated[list[Integer] | None, Parameter(consume_multiple=True)] = None,
    threads: Integer = 1,
    seconds: float = 2.0,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Measure what a run, an ONNX file or a tokenizer takes: bytes, operations, memory, times.

    Measures on the CPU, in a fresh process. A run is measured from stored ids to logits, a
    tokenizer from pixels or waveforms to ids.

    Args:
        path: A finished run's folder, an .onnx file, or a tokenizer's file or name.
        batch_size: Batch sizes; 1 and 64 by default.
        threads: Threads of an operator.
        seconds: Time to spend on each batch size.
        out: A new HTML file, with a table of the layers.
        json: Print one JSON object.
    """
    from seit.api import footprint

    result = footprint(
        path, batch_size=batch_size or (1, 64), threads=threads, seconds=seconds, out=out
    )
    if json:
        return print_result(result)
    print_table(_rows(result))
    return say(f"the page is at {out}") if out is not None else None


def _rows(result: "FootprintResult") -> list[tuple[str, str]]:
    from seit.training import operations

    zeros = result.parameters - result.nonzero_parameters
    int8 = result.cpu["int8"]
    flags = ", ".join(map(str, int8)) if isinstance(int8, list) and int8 else "none known"
    energy = result.energy_proxy
    return [
        ("measured", f"{result.name}, in {result.runtime}"),
        ("parameters", f"{result.parameters:,}" + (f", {zeros:,} of them 0" if zeros else "")),
        ("size", human_bytes(result.bytes)),
        ("FLOPs", operations(result.flops)),
        ("bit operations", operations(result.bops)),
        ("peak memory", f"{human_bytes(result.peak_memory_bytes)} more than the imports"),
        ("cold start", f"{result.cold_start_seconds:.2f} s"),
        *(
            (f"batch of {size}", f"{one.p50:.3g} ms (p95 {one.p95:.3g} ms, {one.repeats} repeats)")
            for size, one in result.latency_ms.items()
        ),
        ("rate", f"{result.samples_per_second:,.0f} samples/s"),
        ("energy proxy", "–" if energy is None else f"{energy:.0%} of float32"),
        ("processor", f"{result.cpu['name']}, {result.threads} threads; int8: {flags}"),
    ]
