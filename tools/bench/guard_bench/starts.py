"""Starts of commands, against the imports that they cannot do without."""

import subprocess
import sys
from pathlib import Path

from guard_bench.case import Case, Work, children
from guard_bench.jobs import rendered_store
from start import start


def imports(modules: str) -> Work:
    """Return a Python process that imports modules and ends."""
    return Work(
        lambda: subprocess.run([sys.executable, "-c", f"import {modules}"], check=True), children
    )


def start_help(work: Path) -> Case:
    """`seit --help`, against importing the libraries of its command line."""
    del work
    return Case(Work(lambda: start(["--help"]), children), imports("cyclopts, rich.console"), 5)


def start_info(work: Path) -> Case:
    """`seit info`, against the same libraries and numpy."""
    store = str(rendered_store(work))
    ours = Work(lambda: start(["info", store]), children)
    return Case(ours, imports("cyclopts, rich.console, numpy, msgspec"), 5)


def start_train(work: Path) -> Case:
    """`seit train` up to its first step, against importing torch with its compiler, and timm."""
    store, count = str(rendered_store(work)), iter(range(1000))

    def first_step() -> None:
        out = str(work / f"run-{next(count)}")
        start(
            ["train", store, "--recipe", "small-cpu", "--steps", "2", "--out", out],
            first_step=True,
        )

    return Case(Work(first_step, children), imports("torch._dynamo, timm"), 2)
