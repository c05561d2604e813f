"""`seit compress RUN STORE --method int8 --out RUN2`."""

from pathlib import Path
from typing import TYPE_CHECKING

from seit.cli.figures import accuracy_rows
from seit.cli.flags import RunFlags, figures_bar, print_settings
from seit.cli.integers import Integer
from seit.cli.output import print_result, print_table, say
from seit.cli.train import NOTES
from seit.errors import UsageError
from seit.numbers import human_bytes
from seit.processes import is_main_process
from seit.progress import human_seconds

if TYPE_CHECKING:
    from seit.compression import CompressResult


def command(
    run: Path,
    store: str,
    /,
    *,
    method: str | None = None,
    seeds: Integer = 1,
    flags: RunFlags = RunFlags(),  # noqa: B008 - frozen
) -> None:
    """Make a finished classifier smaller: quantize, prune or distill it.

    OUT is a run like any other: `seit eval`, `predict`, `embed` and `export` take it. Every setting
    of a recipe is also a flag: `--compression.group 32`; `--dry-run` prints them all.

    Args:
        run: A finished run's folder.
        store: The store of the run, a folder or URL. Its training split calibrates and trains, its
            validation split is only evaluated.
        method: int8 and int8-static compute in 8 bits by ONNX Runtime; w8, w4, w3 or w2 store
            weights in as many bits; mixed chooses bits for each layer within --compression.budget;
            qat trains for few bits (--compression.bits); prune removes weights or parts
            (--compression.pattern) and trains the rest; distill trains a smaller student. Several
            with commas between, or all, make runs in OUT/METHOD/seed-0 … and a table. That of the
            recipe by default.
        seeds: Number of seeds of each method.
        flags: Flags of all runs.
    """
    from seit.api import compress, plan_run

    given = flags.keywords(method=method)
    if given.pop("init_from", None) is not None:
        raise UsageError("--init-from is of no use here: RUN is what is compressed; leave it out")
    if flags.dry_run:
        settings = plan_run("compress", store, out=flags.out, seeds=seeds, init_from=run, **given)
        return print_settings(settings, json=flags.json)
    out = flags.folder
    with figures_bar("compressing", NOTES) as progress:
        result = compress(run, store=store, out=out, seeds=seeds, progress=progress, **given)
    if not is_main_process():
        return None
    if flags.json:
        return print_result(result)
    from seit.compression import HEADER, MethodsComparison, cells

    if isinstance(result, MethodsComparison):
        print_table([HEADER, *map(cells, (result.source, *result.rows))], left=1)
    else:
        _print_run(result, out)
    return say(f"the report is at {out}/report.html")


def _print_run(result: "CompressResult", out: Path) -> None:
    from seit.training import Run

    classes = Run.open(out).classes
    print_table(
        [
            *accuracy_rows(result, samples=result.val_samples, num_classes=len(classes)),
            ("top-1 before", f"{result.top1_before:.2%}"),
            ("same predictions", f"{result.agreement:.2%}"),
            (
                "size",
                f"{human_bytes(result.bytes)} of {human_bytes(result.bytes_before)} "
                f"({result.bytes / result.bytes_before:.1%})",
            ),
            *(
                (f"batch of {size}", f"{one.p50:.3g} ms on one thread")
                for size, one in (result.latency_ms or {}).items()
            ),
            ("speed", _speed(result)),
            ("time", human_seconds(result.seconds)),
        ]
    )


def _speed(result: "CompressResult") -> str:
    if result.speed is None:
        return "not compared with the run before: `seit footprint` measures each"
    parts = [f"{verdict} at batch {size}" for size, verdict in result.speed.items()]
    return f"{', '.join(parts)}, compared with float32 on one thread"
