"""`seit frontier SRC`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from seit.cli.flags import assigned_settings
from seit.cli.integers import Integer
from seit.cli.output import print_result, print_table, say, stage_bar
from seit.numbers import counted, human_bytes
from seit.progress import human_seconds

if TYPE_CHECKING:
    from seit.analysis import FrontierPlan


def command(
    src: str,
    /,
    *,
    out: Path = Path("frontier"),
    points: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    recipe: str = "small-cpu",
    steps: Integer | None = None,
    seeds: Integer = 3,
    seed: Integer = 0,
    size: Integer | None = None,
    codes: Integer = 1024,
    val_fraction: float = 0.1,
    device: str = "auto",
    workers: Integer | None = None,
    dry_run: bool = False,
    set_: Annotated[list[str] | None, Parameter(name="--set")] = None,
    json: bool = False,
) -> None:
    """Train one backbone from original files, JPEGs, small pictures, subsets and tokens; compare.

    Draws top-1 against the bytes of the training data. All runs have the same recipe, steps and
    seeds. The same command resumes an interrupted one; more points and seeds may be added.

    Args:
        src: A corpus of labeled images, as for `seit tokenize`.
        out: Folder for copies, stores, runs, the chart and the report.
        points: What to compare: pixels, jpeg-10 (quality), res-1/4 (of the side), subset-25 (%),
            tokens-patch, tokens-patch-64 (codes), tokens-lite, any tokens with -packed.
        recipe: A recipe's name; its settings are flags too, as in `--optim.lr 1e-3`.
        steps: Steps of each run, instead of the recipe's length.
        seeds: Runs of each point.
        seed: First of the seeds.
        size: Side in pixels of the squares that tokenizers and networks see; 256 by default.
        codes: Codebook size of tokens-patch.
        val_fraction: Share of samples for validation where SRC has no splits.
        device: auto, cpu, cuda, mps.
        workers: Pictures decoded in parallel; one per core by default.
        dry_run: Print the points with their expected bytes and stop.
        set_: NAME=VALUE of any setting of the recipe.
        json: Print one JSON object.
    """
    from seit.analysis import FrontierPlan
    from seit.api import frontier

    names = [name for text in points or () for name in text.split(",") if name]
    with stage_bar("frontier") as progress:
        result = frontier(
            src,
            out=out,
            points=None if points is None else names,
            recipe=recipe,
            steps=steps,
            seeds=seeds,
            seed=seed,
            device=device,
            size=size,
            codes=codes,
            val_fraction=val_fraction,
            workers=workers,
            dry_run=dry_run,
            progress=progress,
            **assigned_settings(set_),
        )
    if json:
        return print_result(result)
    if isinstance(result, FrontierPlan):
        return _print_plan(result)
    print_table(
        [
            ["point", "bytes", "a picture", "top-1", "PSNR"],
            *(
                [
                    f"{row.name} *" if row.is_on_front else row.name,
                    human_bytes(row.bytes),
                    human_bytes(row.bytes_per_sample),
                    f"{row.top1:.1%}" + ("" if row.top1_std is None else f" ± {row.top1_std:.1%}"),
                    "" if row.psnr_db is None else f"{row.psnr_db:.1f} dB",
                ]
                for row in result.rows
            ),
        ],
        left=1,
    )
    say("* no other point is as accurate in fewer bytes")
    return say(f"done in {human_seconds(result.seconds)}; the picture is at {result.report}")


def _print_plan(plan: "FrontierPlan") -> None:
    print_table(
        [
            ["point", "bytes", "a picture", "pictures", "runs"],
            *(
                [
                    point.name,
                    human_bytes(point.bytes),
                    human_bytes(point.bytes_per_sample),
                    f"{point.samples:,}",
                    str(point.runs),
                ]
                for point in plan.points
            ),
        ],
        left=1,
    )
    return say(
        f"{counted(plan.runs, 'run')} in all; tokens are stated as packed, before entropy coding"
    )
