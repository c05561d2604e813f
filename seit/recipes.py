"""Recipes: YAML files in the folder ``train`` that fully describe a run.

The folder of a checkout takes precedence; an installed package contains a copy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType

from seit.errors import UsageError

_PACKAGE = Path(__file__).parent
_MODALITY = "# modality:"
DEFAULTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("small-cpu", "audio-small-cpu"),
        "tune": ("tune-small-cpu",),
        "tune-speech": ("tune-speech-small-cpu",),
        "compress": ("compress-small-cpu",),
        "continual": ("continual-small-cpu",),
        "mtm": ("mtm-small-cpu",),
        "sit": ("sit-small-cpu",),
        "further": ("further-small-cpu",),
    }
)
"""Default recipes of each task; the first one made for the modality is used."""


@dataclass(frozen=True)
class Recipe:
    """Name and file of a recipe."""

    name: str
    path: Path

    @property
    def summary(self) -> str:
        """First line of the file, without its ``#``."""
        lines = self.path.read_text().splitlines()
        return lines[0].lstrip("# ").strip() if lines else ""

    @property
    def modality(self) -> str | None:
        """Modality of its augmentation, from its line ``# modality: …``; None for any."""
        lines = self.path.read_text().splitlines()
        found = (line.removeprefix(_MODALITY) for line in lines if line.startswith(_MODALITY))
        return next((text.strip() for text in found), None)


def data_folder(room: str) -> Path:
    """Return the folder of recipes, cards or specifications: tokenizers, shards or train."""
    checkout = _PACKAGE.parent / room
    if (_PACKAGE.parent / "pyproject.toml").is_file() and checkout.is_dir():
        return checkout
    return _PACKAGE / "_data" / room


def list_recipes() -> list[Recipe]:
    """Return all recipes, by name."""
    return [Recipe(path.stem, path) for path in sorted(data_folder("train").glob("*.yaml"))]


def default_recipe(task: str, modality: str) -> Recipe:
    """Return the default recipe of a task for data of a modality.

    Raises:
        UsageError: there is none; the message suggests the nearest name.
    """
    recipes = [find_recipe(name) for name in DEFAULTS[task]]
    fitting = next((one for one in recipes if one.modality in (None, modality)), None)
    if fitting is None:
        special = [
            one
            for one in list_recipes()
            if one.modality == modality and one.name.startswith(f"{task}-")
        ]
        near = (special or recipes)[0]
        raise UsageError(
            f"there is no recipe of {task} for {modality} of all kinds; the nearest is {near.name} "
            f"({near.summary.partition(':')[0]}): pass --recipe {near.name} to use it"
        )
    return fitting


def find_recipe(name: str) -> Recipe:
    """Return the recipe called ``name``.

    Raises:
        UsageError: there is none; the message suggests the nearest name.
    """
    recipes = {recipe.name: recipe for recipe in list_recipes()}
    if name not in recipes:
        near = get_close_matches(name, recipes, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(recipes)}"
        raise UsageError(f"there is no recipe {name!r}; {hint}")
    return recipes[name]
