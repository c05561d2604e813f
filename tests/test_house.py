"""Rules of the house that a machine can check."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WINGS = (
    "analysis",
    "compression",
    "continual_learning",
    "pretraining",
    "tokenizer_training",
)
TRUNK = (
    "exports",
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


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> list[tuple[str, str | None]]:
    """Return every import of a file, late ones too, as (module, name); None for ``import x``."""
    found: list[tuple[str, str | None]] = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            found += ((alias.name, None) for alias in node.names)
    return found


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


def exported_by(face: Path) -> dict[str, str]:
    """Return the module that defines each name of a lazy face."""
    room = module_of(face)
    return {
        f"{room}.{alias.asname or alias.name}": f"{room}.{node.module}"
        for node in ast.walk(parsed(face))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def packages(module: str) -> Iterator[str]:
    """Yield the packages around a module, whose own files run before it."""
    while "." in module:
        module = module.rpartition(".")[0]
        yield module


def runs(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a module that run: all but those for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from runs(node)


def test_no_module_imports_itself_by_way_of_others():
    """Count late imports too: one that only breaks a circle hides the circle."""
    files = {module_of(path): path for path in modules(ROOT / "seit")}
    exported = {}
    for face in (ROOT / "seit").rglob("__init__.pyi"):
        exported |= exported_by(face)
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        graph[module] = set()
        for node in runs(parsed(path)):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    graph[module].add(
                        exported.get(name) or (name if name in files else node.module)
                    )
            elif isinstance(node, ast.Import):
                graph[module].update(alias.name for alias in node.names)
        graph[module] |= {above for name in graph[module] for above in packages(name)}
        graph[module] -= {module, *packages(module)}
        graph[module] &= files.keys()
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("face", sorted((ROOT / "seit").rglob("__init__.pyi")), ids=str)
def test_no_face_hides_a_module_of_its_room(face):
    """A name of a lazy face that is also a module's would turn into the module once imported."""
    names = {
        alias.asname or alias.name
        for node in ast.walk(parsed(face))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    files = {path.stem for path in face.parent.iterdir() if path.suffix in ("", ".py")}
    assert not names & files


def test_folders_named_like_packages_hold_no_python():
    for folder in ("tokenizers", "shards", "train"):
        assert not list((ROOT / folder).rglob("*.py")), f"{folder}/ must not shadow a package"
