"""Page of a footprint: tiles, times by batch size, and a table of the layers."""

from pathlib import Path

from markupsafe import Markup

from seit.compression.footprint.result import FootprintResult
from seit.numbers import human_bytes
from seit.report import Figure, Section, figures, page, table, write_page
from seit.training import LayerFootprint, operations

_LAYERS = ("layer", "parameters", "not 0", "bytes", "of all bytes", "bits", "FLOPs", "of all FLOPs")
_TIMES = ("batch size", "p50 ms", "p95 ms", "CPU p50 ms", "repeats", "samples per second")


def write_footprint_page(path: Path, found: FootprintResult, *, title: str) -> None:
    """Write the page of a footprint.

    Raises:
        SeitError: the file cannot be written.
    """
    sections = [
        Section("Figures", _tiles(found)),
        Section("Times", _times(found), _explanation(found)),
        Section("Bytes on disk", _bytes(found)),
        Section("Layers", table([_row(one, found) for one in found.layers], header=_LAYERS)),
    ]
    footer = ", ".join(f"{name} {number}" for name, number in found.versions.items())
    lead = f"{found.name}, in {found.runtime}, {found.threads} threads of {found.cpu['name']}."
    write_page(path, page(title, lead=lead, sections=sections, footer=footer))


def _tiles(found: FootprintResult) -> Markup:
    zeros = found.parameters - found.nonzero_parameters
    energy = "–" if found.energy_proxy is None else f"{found.energy_proxy:.0%}"
    items = [
        Figure("parameters", f"{found.parameters:,}", f"{zeros:,} of them 0"),
        Figure("size", human_bytes(found.bytes), f"{found.bytes:,} bytes on disk"),
        Figure("FLOPs", operations(found.flops), "of a forward pass of one sample"),
        Figure("bit operations", operations(found.bops), "bits of both factors, multiplied"),
        Figure("peak memory", human_bytes(found.peak_memory_bytes), "added by loading and running"),
        Figure("cold start", f"{found.cold_start_seconds:.2f} s", "to the first result"),
        Figure("samples per second", found.samples_per_second, "at the largest batch size"),
        Figure("energy proxy", energy, "relative to float32"),
    ]
    return figures(items)


def _times(found: FootprintResult) -> Markup:
    rows = [
        [
            int(size),
            one.p50,
            one.p95,
            one.cpu_p50,
            one.repeats,
            1000 * int(size) / one.p50,
        ]
        for size, one in found.latency_ms.items()
    ]
    return table(rows, header=_TIMES)


def _explanation(found: FootprintResult) -> str:
    int8 = found.cpu["int8"]
    flags = ", ".join(map(str, int8)) if isinstance(int8, list) and int8 else "none known"
    joules = found.joules_per_sample
    measured = "" if joules is None else f" Measured: {joules:.3g} J a sample, whole packages."
    return (
        f"Instructions of the processor for 8-bit integers: {flags}. Energy proxy: "
        f"{found.energy_formula}.{measured}"
    )


def _bytes(found: FootprintResult) -> Markup:
    rest = found.bytes - sum(found.bytes_by_dtype.values())
    sizes = [*found.bytes_by_dtype.items(), ("everything else", rest)]
    rows = [[name, size, f"{size / found.bytes:.1%}"] for name, size in sizes]
    return table(rows, header=["dtype", "bytes", "share"])


def _row(layer: LayerFootprint, found: FootprintResult) -> list[object]:
    return [
        layer.name or "(network)",
        layer.parameters,
        layer.nonzero_parameters,
        layer.bytes,
        f"{layer.bytes / found.bytes:.1%}",
        layer.weight_bits,
        layer.flops,
        None if not found.flops or layer.flops is None else f"{layer.flops / found.flops:.1%}",
    ]
