"""Finding recipes: YAML files that fully describe a run, kept in the folder ``train``.

A checkout's own folder is preferred; an installed package carries a copy.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from seit.errors import UsageError

_PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Recipe:
    """A recipe's name, file, and first comment line."""

    name: str
    path: Path

    @property
    def summary(self) -> str:
        """The first line of the file, without its ``#``."""
        lines = self.path.read_text().splitlines()
        return lines[0].lstrip("# ").strip() if lines else ""


def data_folder(room: str) -> Path:
    """The folder of recipes, cards or specifications of ``room``: tokenizers, shards or train."""
    checkout = _PACKAGE.parent / room
    if (_PACKAGE.parent / "pyproject.toml").is_file() and checkout.is_dir():
        return checkout
    return _PACKAGE / "_data" / room


def list_recipes() -> list[Recipe]:
    """All recipes, by name."""
    return [Recipe(path.stem, path) for path in sorted(data_folder("train").glob("*.yaml"))]


def find_recipe(name: str) -> Recipe:
    """The recipe called ``name``.

    Raises:
        UsageError: there is none; the nearest name is given.
    """
    recipes = {recipe.name: recipe for recipe in list_recipes()}
    if name not in recipes:
        near = get_close_matches(name, recipes, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(recipes)}"
        raise UsageError(f"there is no recipe {name!r}; {hint}")
    return recipes[name]
