"""`seit frontier SRC`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from seit.cli.output import (
    columns,
    human_bytes,
    print_json,
    print_lines,
    progress_bar,
    say,
)
from seit.progress import human_seconds

if TYPE_CHECKING:
    from seit.analysis import FrontierConfig


def command(
    src: str,
    /,
    *,
    out: Path = Path("frontier"),
    points: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    recipe: str = "small-cpu",
    steps: int | None = None,
    seeds: int = 3,
    seed: int = 0,
    size: int | None = None,
    codes: int = 1024,
    val_fraction: float = 0.1,
    device: str = "auto",
    workers: int | None = None,
    dry_run: bool = False,
    set_: Annotated[list[str] | None, Parameter(name="--set")] = None,
    json: bool = False,
) -> None:
    """Train one backbone from original files, JPEGs, small pictures, subsets and tokens; compare.

    Draws top-1 against the bytes of the training data. All runs have the same recipe, steps and
    seeds. Run again, it goes on where it was stopped; more points and seeds may be added.

    Args:
        src: A corpus of labelled images, as for `seit tokenize`.
        out: Where copies, stores, runs, the chart and the report go.
        points: What to compare: pixels, jpeg-10 (quality), res-1/4 (of the side), subset-25 (%),
            tokens-patch, tokens-patch-64 (codes), tokens-conv, any tokens with -packed.
        recipe: A recipe's name; its settings are flags too, as in `--optim.lr 1e-3`.
        steps: Steps of each run, instead of the recipe's length.
        seeds: Runs of each point.
        seed: The first of the seeds.
        size: Side in pixels of the squares that tokenizers and networks see; 256 by default.
        codes: Codebook size of tokens-patch.
        val_fraction: Share that is validated on where SRC has no splits of its own.
        device: auto, cpu, cuda, mps.
        workers: Pictures that are decoded at a time; one a core by default.
        dry_run: Print the points with their expected bytes and stop.
        set_: NAME=VALUE; what `--group.field value` is short for.
        json: Print the result as one JSON object.
    """
    from seit.analysis import DEFAULT_POINTS, FrontierConfig, run_frontier
    from seit.config import parse_assignments

    names = [name for text in points or () for name in text.split(",") if name]
    config = FrontierConfig(
        points=tuple(names) if points is not None else DEFAULT_POINTS,
        recipe=recipe,
        settings=parse_assignments(set_ or ()),
        steps=steps,
        seeds=seeds,
        seed=seed,
        device=device,
        size=size,
        codes=codes,
        val_fraction=val_fraction,
        workers=workers,
    )
    if dry_run:
        return _print_plan(src, config, json)
    with progress_bar("frontier", "") as bar:
        result = run_frontier(
            src, out, config=config, progress=lambda stage, done, total: bar(done, total, stage)
        )
    if json:
        places = {"chart": str(result.chart), "report": str(result.report)}
        return print_json({**asdict(result), **places})
    rows = [
        [
            f"{row.name} *" if row.is_on_front else row.name,
            human_bytes(row.bytes),
            human_bytes(row.bytes_per_sample),
            f"{row.top1:.1%}" + ("" if row.top1_std is None else f" ± {row.top1_std:.1%}"),
            "" if row.psnr_db is None else f"{row.psnr_db:.1f} dB",
        ]
        for row in result.rows
    ]
    print_lines(columns([["point", "bytes", "a picture", "top-1", "PSNR"], *rows]))
    say("* no other point is as accurate in fewer bytes")
    return say(f"done in {human_seconds(result.seconds)}; the picture is at {result.report}")


def _print_plan(src: str, config: "FrontierConfig", json: bool) -> None:
    from seit.analysis import plan_frontier

    planned = plan_frontier(src, config)
    runs = sum(point.runs for point in planned)
    if json:
        values: dict[str, Any] = {"points": [asdict(point) for point in planned], "runs": runs}
        return print_json(values)
    rows = [
        [
            point.name,
            human_bytes(point.bytes),
            human_bytes(point.bytes_per_sample),
            f"{point.samples:,}",
            str(point.runs),
        ]
        for point in planned
    ]
    print_lines(columns([["point", "bytes", "a picture", "pictures", "runs"], *rows]))
    return say(f"{runs} runs in all; tokens are stated as packed, before entropy coding")
