"""The examples run on a tiny store, each as its own program."""

import importlib.util
import os
import runpy
import sys
import warnings
from pathlib import Path

import pytest
from support.processes import exit_codes, fork_recorded
from support.stores import build_store

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
EXPECTED = {
    "torch_dataloader.py": "48 samples in 3 batches",
    "webdataset_pipeline.py": "48 samples",
    "lightning_module.py": "2 steps",
}
NEEDS = {"lightning_module.py": "lightning"}


SLOW = {"lightning_module.py"}


def run_program(path, folder):
    warnings.resetwarnings()
    os.chdir(folder)
    sys.argv = [str(path), str(folder / "store")]
    runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in EXPECTED],
)
def test_an_example_runs(tmp_path, name):
    package = NEEDS.get(name)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"needs the package {package}")
    build_store(tmp_path / "store", shards={"train": (30, 18)}, block_samples=8)
    job = fork_recorded(run_program, EXAMPLES / name, tmp_path, folder=tmp_path / "output")
    assert exit_codes([job]) == [0], (tmp_path / "output" / "err").read_text()
    assert (tmp_path / "output" / "out").read_text().splitlines()[-1] == EXPECTED[name]


def test_every_example_is_run_here():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(EXPECTED)
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) < 60
