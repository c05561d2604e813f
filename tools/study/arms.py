r"""Compare ways to train on one corpus: arms × seeds, a learning rate for each arm, one table.

    uv run python tools/study/arms.py tools/study/tokens_pixels.yaml WORK --data FOLDER --hours 2
    uv run python tools/study/arms.py tools/study/tokens_pixels.yaml WORK --data FOLDER \
        --arms "patch tokens" "strong pixels"
    uv run python tools/study/arms.py tools/study/tokens_pixels.yaml WORK --publish

Each arm first tries every rate of the grid on a slice held out of the training split (`dev`), then
trains with the best one on the whole split, once for each seed; only these runs see val. A study
with folds does so in each fold: every fold is val once, and has rates of its own. Results go
to `docs/results/STUDY.json` as they come, and what is there is not run again: a study may go on in
another folder, or on another machine. Start the command several times on one WORK to use several
cores; a run that was interrupted continues from its checkpoint. `--arms` does these arms only;
`--precision bf16` is for CPUs with matrix units, `--device cuda` for a GPU; both are noted with
each result. `--publish` writes the table into docs/evidence.md and draws a chart beside it.
"""

import argparse
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
import yaml
from arm_runs import LABELS, Job, Results, Study, Work
from filelock import FileLock, Timeout
from records import standard_error
from scipy.stats import ttest_1samp

from seit.report import Family, Mark, scatter_svg

DOCS = Path(__file__).parents[2] / "docs"
RESULTS = DOCS / "results"
PAGE = DOCS / "evidence.md"
SHOWN = 2.0
"""Standard errors that a difference must exceed."""
LEAST = 3
"""Pairs that a verdict needs."""
LEAST_P = 0.001
"""Smallest p-value that is written out."""


def go_on(
    study: Study, results: Results, work: Work, *, arms: Sequence[str], seconds: float
) -> None:
    """Do the runs that are missing and that no other process is doing; start none too late."""
    began = time.monotonic()
    for job in study.jobs(arms):
        if job.name in results.read() or time.monotonic() - began > seconds:
            continue
        rate = job.rate if job.seed is None else results.best_rate(study, job.arm, job.fold)
        if rate is None and study.rates:
            continue
        try:
            with FileLock(work.path / f"{work.study}, {job.name}.lock", timeout=0):
                if job.name not in results.read():
                    results.add(job.name, work.run(study, job, rate))
                    print(f"{time.monotonic() - began:7.0f} s  {job.name}", flush=True)
        except Timeout:
            continue


def table(study: Study, results: Results) -> str:
    """Return the results as Markdown: means, and differences paired by seed, or by fold."""
    figure = study.arms[study.reference].figure
    rows = [
        ["arm", "bytes", "GFLOPs", "best rate", LABELS[figure], "seeds", "difference", "p", "shown"]
    ]
    for arm, settings in study.arms.items():
        found = _final_runs(study, results, arm)
        if not found:
            continue
        base = _final_runs(study, results, settings.against or study.reference)
        one = next(iter(found.values()))
        rates = sorted({run["rate"] for run in found.values() if run["rate"] is not None})
        paired = {key: found[key][figure] - base[key][figure] for key in found if key in base}
        verdict = _verdict(_units(study, paired))
        if arm == study.reference:
            verdict = "reference", "", ""
        flops = f"{one['flops'] / 1e9:.3f}" if one["flops"] else ""
        figures = {key: run[figure] for key, run in found.items()}
        rows.append(
            [
                *(arm, f"{_size(one):,.0f}", flops, ", ".join(f"{x:g}" for x in rates)),
                *(_spread(_units(study, figures)), _counts(study, found), *verdict),
            ]
        )
    columns = [(head, *cells) for head, *cells in zip(*rows, strict=True) if any(cells)]
    head, *body = (f"| {' | '.join(cells)} |" for cells in zip(*columns, strict=True))
    return "\n".join([head, "|---" * len(columns) + "|", *body])


def _final_runs(study: Study, results: Results, arm: str) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the runs of an arm that were judged on val, by fold and seed."""
    runs = results.read()
    keys = itertools.product(study.folds or [""], range(study.seeds))
    names = {key: Job(arm=arm, fold=key[0], seed=key[1]).name for key in keys}
    return {key: runs[name] for key, name in names.items() if name in runs}


def _units(study: Study, shares: Mapping[tuple[str, int], float]) -> list[float]:
    """Return independent values in %: one a seed, or the mean over the seeds of each fold."""
    units: dict[str | int, list[float]] = {}
    for (fold, seed), share in shares.items():
        units.setdefault(fold if study.folds else seed, []).append(100 * share)
    return [fmean(values) for values in units.values()]


def _counts(study: Study, found: Mapping[tuple[str, int], Any]) -> str:
    """Return the number of seeds, with folds after that of folds."""
    seeds = len({seed for _, seed in found})
    return f"{len({fold for fold, _ in found})} folds × {seeds}" if study.folds else str(seeds)


def chart(study: Study, results: Results) -> str:
    """Return the figure of arms against their bytes as SVG, with standard errors.

    If some arms are points of lines, only these are drawn.
    """
    families: dict[str, list[Mark]] = {}
    has_lines = any(arm.line for arm in study.arms.values())
    for name, arm in study.arms.items():
        found = _final_runs(study, results, name)
        if found and (arm.line or not has_lines):
            figures = _units(study, {key: run[arm.figure] for key, run in found.items()})
            error = standard_error(figures) or 0.0
            size = _size(next(iter(found.values())))
            kind = ("copies" if arm.copy else "pixels") if arm.pixels else "tokens"
            mark = Mark(name, size, fmean(figures) / 100, error / 100)
            families.setdefault(arm.line or kind, []).append(mark)
    has_memory = any("memory_bytes" in run for run in results.read().values())
    return scatter_svg(
        [Family(name, marks, is_joined=has_lines) for name, marks in families.items()],
        title=f"{study.corpus}: accuracy against bytes",
        x_label="bytes of memory" if has_memory else "bytes per sample",
        y_label=LABELS[study.arms[study.reference].figure].removesuffix(", %"),
        y_format="percent",
        note=f"Bars are standard errors over {'folds' if study.folds else 'seeds'}.",
    )


def _size(run: Mapping[str, Any]) -> float:
    """Return the bytes of the memory of a run, or else of one sample."""
    size: float = run.get("memory_bytes", run["bytes_per_sample"])
    return size


def publish(study: Study, results: Results) -> None:
    """Write the table into the page of evidence, between the comments of the study, and a chart.

    Arms of one size have no chart.
    """
    name = results.path.stem
    head, separator, rest = PAGE.read_text().partition(f"<!-- {name} -->")
    _, end, tail = rest.partition(f"<!-- /{name} -->")
    if not separator or not end:
        raise SystemExit(f"{PAGE} has no comments <!-- {name} --> and <!-- /{name} -->; add them")
    firsts = [next(iter(_final_runs(study, results, arm).values()), None) for arm in study.arms]
    if len({round(_size(run)) for run in firsts if run}) > 1:
        (DOCS / f"{name}.svg").write_text(chart(study, results))
    PAGE.write_text(f"{head}{separator}\n\n{table(study, results)}\n\n{end}{tail}")


def _spread(values: list[float]) -> str:
    error = standard_error(values)
    return f"{fmean(values):.1f}" + ("" if error is None else f" ± {error:.1f}")


def _verdict(paired: list[float]) -> tuple[str, str, str]:
    """Return a paired difference with its standard error, Student's p, and whether it is shown."""
    if not paired:
        return "", "", ""
    mean, error = fmean(paired), standard_error(paired)
    if error is None or len(paired) < LEAST:
        return f"{mean:+.1f}", "", "too few seeds"
    p = float(ttest_1samp(paired, 0).pvalue) if error else float(not mean)
    is_shown = abs(mean) > SHOWN * error
    return (
        f"{mean:+.1f} ± {error:.1f}",
        f"{p:.3f}" if p >= LEAST_P else f"< {LEAST_P}",
        "shown" if is_shown else "not shown",
    )


def main() -> None:
    """Go on with a study, or print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", type=Path, help="folder of the corpora")
    parser.add_argument("--hours", type=float, default=math.inf)
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="arms to do; all if not given")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--publish", action="store_true")
    arguments = parser.parse_args()
    try:
        study = msgspec.convert(yaml.safe_load(arguments.study.read_text()), Study, strict=False)
    except msgspec.ValidationError as error:
        parser.error(f"{arguments.study}: {error}")
    results = Results(RESULTS / f"{arguments.study.stem}.json")
    if arguments.publish:
        publish(study, results)
        return
    if arguments.data is None:
        parser.error("--data names the folder of the corpora")
    arms = arguments.arms or list(study.arms)
    if unknown := set(arms) - set(study.arms):
        parser.error(f"no arm {', '.join(sorted(unknown))}; the arms are {', '.join(study.arms)}")
    arguments.work.mkdir(parents=True, exist_ok=True)
    work = Work(
        arguments.work.resolve(),
        arguments.data.resolve(),
        study=arguments.study.stem,
        precision=arguments.precision,
        device=arguments.device,
    )
    go_on(study, results, work, arms=arms, seconds=3600 * arguments.hours)
    print(table(study, results))


if __name__ == "__main__":
    main()
