"""The wheel: what it carries, and that it works away from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import seit as package
from seit.extras import how_to_install

ROOT = Path(__file__).parents[1]
DATA_ROOMS = ("tokenizers", "shards", "train")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the wheel unpacked into it."""
    dist = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(dist)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = dist.glob("*.whl")
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def seit(site, cwd, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, "-m", "seit", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_wheel_carries_code_and_recipes(site):
    packed = tree(site / "seit")
    for room in DATA_ROOMS:
        recipes = {f"_data/{room}/{name}": data for name, data in tree(ROOT / room).items()}
        assert recipes.items() <= packed.items()
    assert tree(ROOT / "seit").items() <= packed.items()
    extra = set(packed) - set(tree(ROOT / "seit"))
    assert all(name.startswith("_data/") for name in extra)


def test_wheel_runs_in_an_empty_folder(site, tmp_path):
    result = seit(site, tmp_path, "--help")
    assert result.returncode == 0
    assert "quickstart" in result.stdout
    result = seit(site, tmp_path, "recipes", "show", "seit-vit-base")
    assert result.returncode == 0
    assert result.stdout == (ROOT / "train" / "seit-vit-base.yaml").read_text()
    assert not list(tmp_path.iterdir())


def test_what_can_be_imported_is_listed():
    assert {"create_model", "loader", "open", "train", "stream", "tokenize"} <= set(dir(package))
    assert all(hasattr(package, name) for name in dir(package))


def test_hints_name_packages_that_an_index_has():
    assert how_to_install("audio") == "run: pip install 'soundfile>=0.13' 'soxr>=0.5'"
    assert "pyproject.toml" in how_to_install("nothing")
