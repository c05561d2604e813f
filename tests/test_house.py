"""Rules of the house that a machine can check."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WINGS = (
    "analysis",
    "continual_learning",
    "pretraining",
    "exports",
    "tokenizer_training",
)
TRUNK = (
    "training",
    "models",
    "augment",
    "stream",
    "ingest",
    "stores",
    "shards",
    "tokenizers",
    "report",
    "demo",
)
ROOMS = ("cli", "api", *WINGS, *TRUNK)
FLOORS = {room: floor for floor, room in enumerate(ROOMS)}

#: Imports that go around a room's face, as (file, module). This list may only become shorter.
AROUND_FACES: frozenset[tuple[str, str]] = frozenset()


def modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield every import of a file, late ones too, as (module, name); None for ``import x``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "seit" and len(parts) > 1 and parts[1] in ROOMS else None


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_downwards(room):
    for path in modules(ROOT / "seit" / room):
        for module, _ in imports(path):
            target = room_of(module)
            if target is None or target == room:
                continue
            assert FLOORS[target] > FLOORS[room], f"{path} imports {module}"
            assert not (room in WINGS and target in WINGS), f"{path}: a wing imports {module}"


def test_every_folder_is_a_room():
    folders = {path.name for path in (ROOT / "seit").iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == set(ROOMS)


def test_rooms_are_entered_by_their_faces():
    around = {
        (str(path.relative_to(ROOT)), module)
        for path in modules(ROOT / "seit")
        for module, _ in imports(path)
        if room_of(module) not in (None, room_of(".".join(path.relative_to(ROOT).parts)))
        and module.count(".") > 1
    }
    assert around <= AROUND_FACES
    assert around >= AROUND_FACES, "the list may become shorter"


@pytest.mark.parametrize("face", sorted((ROOT / "seit").rglob("__init__.pyi")), ids=str)
def test_no_face_hides_a_module_of_its_room(face):
    """A name of a lazy face that is also a module's would turn into the module once imported."""
    names = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(face.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    files = {path.stem for path in face.parent.iterdir() if path.suffix in ("", ".py")}
    assert not names & files


def test_folders_named_like_packages_hold_no_python():
    for folder in ("tokenizers", "shards", "train"):
        assert not list((ROOT / folder).rglob("*.py")), f"{folder}/ must not shadow a package"
