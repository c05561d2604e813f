"""The examples run on a tiny store, each as its own program."""

import importlib.util
import json
import os
import runpy
import sys
import warnings
from pathlib import Path

import pytest
from support.processes import exit_codes, fork_recorded
from support.stores import build_store

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
NOTEBOOK = EXAMPLES / "tour.ipynb"
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


@pytest.mark.slow
@pytest.mark.timeout(600)  # a kernel of its own loads everything again
def test_the_notebook_runs_and_ends_with_a_picture_of_tokens(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": tmp_path}}).execute()
    shown = [
        output["data"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output["output_type"] == "execute_result"
    ]
    *objects, picture = shown
    assert len(objects) == 5, "result, store, split, sample and run"
    assert all("<table>" in one["text/html"] for one in objects)
    assert "data:image/png;base64" in objects[3]["text/html"]
    assert "image/png" in picture
    assert (tmp_path / "tour" / "tokens.png").is_file()


def test_the_notebook_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in cells)
    for cell in cells:
        assert all(len(line) <= 121 for line in "".join(cell["source"]).splitlines(keepends=True))
