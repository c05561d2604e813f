"""Rules of the house that a machine can check."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = (
    "cli",
    "analyze",
    "train",
    "models",
    "augment",
    "stream",
    "tokenize",
    "shards",
    "tokenizers",
    "report",
    "renders",
)


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "seit" and len(parts) > 1 and parts[1] in ROOMS else None


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_downwards(room):
    for path in (ROOT / "seit" / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                targets = [node.module]
            elif isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            else:
                continue
            for target in filter(None, map(room_of, targets)):
                assert ROOMS.index(target) >= ROOMS.index(room), f"{path} imports {target}"


def test_folders_named_like_packages_hold_no_python():
    for folder in ("tokenizers", "shards", "train"):
        assert not list((ROOT / folder).rglob("*.py")), f"{folder}/ must not shadow a package"
