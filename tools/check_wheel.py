"""Build the wheel and check what it carries and that it works away from the checkout.

    uv run --group dev python tools/check_wheel.py

Prints one line, or exits 1 with what is wrong.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA_ROOMS = ("tokenizers", "shards", "train")
"""Folders of the checkout that the wheel carries as ``seit/_data``."""
NOT_CARRIED = "shards/golden/"
"""Stores for readers in other languages, which the sdist carries."""


def main() -> None:
    """Build, unpack, compare with the checkout, and run the command line from an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        site, empty = Path(folder) / "site", Path(folder) / "empty"
        empty.mkdir()
        unpack_wheel(Path(folder) / "dist", site)
        faults = [*compare(tree(site / "seit")), *run_from(site, empty)]
    if faults:
        sys.exit("\n".join(["the wheel is wrong:", *faults]))
    print("the wheel carries the code and the recipes, and runs in an empty folder")


def unpack_wheel(dist: Path, site: Path) -> None:
    """Build the wheel in ``dist`` and unpack it into ``site``."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(dist)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)


def tree(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder by relative path, without caches and hidden files."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def compare(packed: dict[str, bytes]) -> list[str]:
    """Return the files in which the wheel differs from the checkout."""
    expected = tree(ROOT / "seit")
    for room in DATA_ROOMS:
        expected |= {
            f"_data/{room}/{name}": data
            for name, data in tree(ROOT / room).items()
            if not f"{room}/{name}".startswith(NOT_CARRIED)
        }
    names = sorted(packed.keys() | expected.keys())
    return [
        f"{name}: {'changed' if name in packed else 'missing'}"
        if name in expected
        else f"{name}: not in the checkout"
        for name in names
        if packed.get(name) != expected.get(name)
    ]


def run_from(site: Path, empty: Path) -> list[str]:
    """Return what goes wrong when the unpacked wheel runs in an empty folder."""
    recipe = (ROOT / "train" / "seit-vit-base.yaml").read_text()
    faults = []
    for arguments, expected in (
        (["--help"], "quickstart"),
        (["recipes", "show", "seit-vit-base"], recipe),
    ):
        ran = subprocess.run(
            [sys.executable, "-m", "seit", *arguments],
            cwd=empty,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode or expected not in ran.stdout:
            faults.append(f"seit {' '.join(arguments)}: exit {ran.returncode}: {ran.stderr}")
    if list(empty.iterdir()):
        faults.append("the commands left files in the empty folder")
    return faults


if __name__ == "__main__":
    main()
