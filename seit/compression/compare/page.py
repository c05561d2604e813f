"""Page of a comparison of methods: the table, and accuracy against each cost."""

from pathlib import Path

from markupsafe import Markup

from seit.compression.compare.rows import FRONTS, MethodRow, MethodsComparison
from seit.compression.config import CompressConfig
from seit.config import flatten, to_mapping
from seit.numbers import counted, human_bytes
from seit.report import Family, Mark, Section, scatter_chart, table
from seit.training import Run, Spread, folder_of, operations, write_report

HEADER = (
    *(
        "method",
        "bytes",
        "CPU ms",
        "FLOPs",
        "top-1",
        "±",
        "difference",
        "± paired",
        "p",
        "agreement",
    ),
    *("seconds", "on the front of"),
)
_LABELS = {
    "bytes": "bytes",
    "latency": "processor milliseconds of the largest batch, one thread",
    "flops": "FLOPs of a sample",
}
_CAPTION = (
    "± is the standard error over the seeds; ± paired that of the difference from the source on "
    "the same samples; p is McNemar's exact test, the largest over the seeds. Times are processor "
    "times of the largest batch on one thread of this machine."
)


def write_methods_page(out: Path, config: CompressConfig, result: MethodsComparison) -> None:
    """Write `report.html` of a folder of methods."""
    rows = [result.source, *result.rows]
    first = result.rows[0]
    seeds = ", ".join(map(str, first.results))
    run = Run.open(folder_of(out / first.method, next(iter(first.results))))
    settings = flatten(to_mapping(config))
    settings["compression.method"] = ", ".join(row.method for row in result.rows)
    settings["run.seed"] = seeds
    unfit = [[method, why] for method, why in result.skipped.items()]
    write_report(
        out,
        title=f"Compression {out.name}",
        lead=f"{config.model.name}, {counted(len(result.rows), 'method')}, "
        f"{counted(len(first.results), 'seed')} each.",
        sections=[
            Section(
                "Methods", table([cells(row) for row in rows], header=HEADER, caption=_CAPTION)
            ),
            Section(
                "Fronts",
                [_chart(front, rows) for front in FRONTS],
                "Ringed: no other is as cheap and as accurate, and better in one.",
            ),
            *([Section("Left out", table(unfit, header=["method", "why"]))] if unfit else []),
        ],
        settings=settings,
        environment=run.info["environment"],
    )


def cells(row: MethodRow) -> list[str]:
    """Return a row as text, in the order of `HEADER`."""
    is_source = not row.results
    return [
        row.method,
        human_bytes(row.bytes.mean),
        "–" if row.latency_ms is None else f"{row.latency_ms.mean:.3g}",
        "–" if row.flops is None else operations(round(row.flops.mean)),
        f"{row.top1.mean:.2%}",
        _error(row.top1, len(row.results)),
        "–" if is_source else f"{100 * row.difference:+.2f}".replace("-", "−"),
        "–" if row.difference_se is None else f"{100 * row.difference_se:.2f}",
        "–" if row.p_value is None else f"{row.p_value:.2g}",
        f"{row.agreement.mean:.2%}",
        "–" if is_source else f"{row.seconds.mean:.1f}",
        ", ".join(row.fronts) or "–",
    ]


def standard_error(spread: Spread, count: int) -> float:
    """Return the standard error of a mean over ``count`` seeds; 0 for one."""
    return 0.0 if spread.std is None else spread.std / count**0.5


def _error(spread: Spread, count: int) -> str:
    return "–" if spread.std is None else f"{standard_error(spread, count):.2%}"


def _chart(front: str, rows: list[MethodRow]) -> Markup:
    marks = [
        Mark(
            row.method,
            row.cost(front) or 0.0,
            row.top1.mean,
            standard_error(row.top1, len(row.results)),
            is_marked=front in row.fronts,
        )
        for row in rows
    ]
    return scatter_chart(
        [Family("methods", marks, is_joined=False)],
        title=f"Accuracy against {front}",
        x_label=_LABELS[front],
        y_label="top-1",
        y_format="percent",
    )
