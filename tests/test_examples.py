"""The examples run on a tiny store, each as its own program."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.stores import build_store

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
EXPECTED = {
    "torch_dataloader.py": "48 samples in 3 batches",
    "webdataset_pipeline.py": "48 samples",
    "lightning_module.py": "2 steps",
}
NEEDS = {"lightning_module.py": "lightning"}


SLOW = {"lightning_module.py"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in EXPECTED],
)
def test_an_example_runs(tmp_path, name):
    package = NEEDS.get(name)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"needs the package {package}")
    build_store(tmp_path / "store", shards={"train": (30, 18)}, block_samples=8)
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / name), str(tmp_path / "store")],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == EXPECTED[name]


def test_every_example_is_run_here():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(EXPECTED)
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) < 60
