"""`seit runs list | compare`."""

from dataclasses import asdict
from pathlib import Path

from cyclopts import App

from seit.cli.output import columns, print_json, print_lines, print_table, say, warn

command = App(name="runs", help="List and compare runs.", help_format="markdown")
_MOST_CLASSES = 10


@command.command(name="list")
def list_(folder: Path = Path(), /, *, json: bool = False) -> None:
    """List the runs below FOLDER.

    Pretraining runs are listed with the accuracies of k-NN and a linear probe.

    Args:
        folder: Folder to search; the current one by default.
        json: Print one JSON object.
    """
    from seit.analysis import list_runs

    runs = list_runs(folder)
    if json:
        return print_json({"runs": [asdict(run) for run in runs]})
    if not runs:
        return say(f"there are no runs below {folder}")
    has_probes = any(run.objective not in (None, "classify") for run in runs)
    rows = [
        [
            run.name,
            run.status,
            *([run.objective or "–"] if has_probes else []),
            run.model or "–",
            "–" if run.steps is None else f"{run.steps:,}",
            _share(run.top1),
            *([_share(run.knn_top1), _share(run.linear_top1)] if has_probes else []),
            "–" if run.samples_per_second is None else f"{run.samples_per_second:.0f}",
            (run.date or "–").replace("T", " ").removesuffix("Z"),
        ]
        for run in runs
    ]
    objective, probes = (["objective"], ["k-NN", "linear"]) if has_probes else ([], [])
    header = ["run", "status", *objective, "model", "steps", "top-1", *probes, "samples/s"]
    print_table([[*header, "date (UTC)"], *rows], left=3 + len(objective))
    if any(run.objective == "continual" for run in runs):
        say("top-1 of continual runs is pooled: each sample of all tasks so far counts alike")
    return warn([f"{run.name} is damaged: {run.reason}" for run in runs if run.reason])


@command.command
def compare(*runs: Path, out: Path | None = None, json: bool = False) -> None:
    """Compare finished runs with the first one: `seit runs compare A B …`.

    Lists the settings that differ, the results, the classes that changed most, and whether the
    difference may be chance. A folder of seeds stands for its runs. Pretraining runs are compared
    with pretraining runs, by probes of their features and by their losses.

    Args:
        runs: Folders of runs, or of several seeds.
        out: A new HTML file for a report with the curves of all.
        json: Print one JSON object.
    """
    from seit.analysis import (
        class_rows,
        compare_contenders,
        header,
        open_contenders,
        result_rows,
        say_verdicts,
        setting_rows,
    )
    from seit.files import check_new_file

    if out is not None:
        check_new_file(out)
    contenders = open_contenders(runs)
    found = compare_contenders(contenders)
    if out is not None:
        from seit.analysis import write_comparison

        write_comparison(out, found, contenders)
    if json:
        return print_json(asdict(found))
    lines = columns([header(found), *result_rows(found)], left=1)
    if found.settings:
        rows = setting_rows(found)
        lines += ["", *columns([["settings that differ", *found.names], *rows], left=99)]
    if rows := class_rows(found, _MOST_CLASSES):
        lines += ["", *columns([header(found, "recall by class"), *rows], left=1)]
    if sentences := say_verdicts(found):
        lines += ["", *sentences]
    print_lines(lines)
    return say(f"the report is at {out}") if out is not None else None


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"
