"""`seit recipes list | show | copy`."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from seit.cli.flags import recipe_names
from seit.cli.output import print_json, print_lines, print_table, say

Name = Annotated[str, Parameter(completer=recipe_names)]
command = App(
    name="recipes", help="Recipes: YAML files that fully describe a run.", help_format="markdown"
)


@command.command(name="list")
def list_(*, json: bool = False) -> None:
    """List the recipes.

    Args:
        json: Print one JSON object: summaries by name.
    """
    if json:
        return print_json(dict(recipe_names()))
    return print_table(recipe_names())


@command.command
def show(name: Name, /, *, json: bool = False) -> None:
    """Print a recipe.

    Args:
        name: Name of a recipe.
        json: Print its settings as one JSON object, without comments.
    """
    from seit.config import read_yaml
    from seit.recipes import find_recipe

    path = find_recipe(name).path
    if json:
        return print_json(read_yaml(path))
    return print_lines(path.read_text().splitlines())


@command.command
def copy(name: Name, file: Path | None = None, /, *, json: bool = False) -> None:
    """Copy a recipe to change it; run it with `seit train --config FILE`.

    Args:
        name: Name of a recipe.
        file: The copy; NAME.yaml here by default.
        json: Print one JSON object: the recipe's name and the copy.
    """
    from seit.files import check_new_file, write_atomically
    from seit.recipes import find_recipe

    recipe = find_recipe(name)
    target = file or Path(f"{name}.yaml")
    check_new_file(target)
    write_atomically(target, recipe.path.read_bytes())
    if json:
        return print_json({"recipe": recipe.name, "file": str(target)})
    return say(f"copied to {target}")
