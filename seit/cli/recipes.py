"""`seit recipes list | show | copy`."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from seit.cli.flags import recipe_names
from seit.cli.output import print_lines, print_table, say

Name = Annotated[str, Parameter(completer=recipe_names)]
command = App(
    name="recipes", help="Recipes: YAML files that fully describe a run.", help_format="markdown"
)


@command.command(name="list")
def list_() -> None:
    """List the recipes."""
    print_table(recipe_names())


@command.command
def show(name: Name, /) -> None:
    """Print a recipe.

    Args:
        name: Name of a recipe.
    """
    from seit.recipes import find_recipe

    print_lines(find_recipe(name).path.read_text().splitlines())


@command.command
def copy(name: Name, file: Path | None = None, /) -> None:
    """Copy a recipe to change it; run it with `seit train --config FILE`.

    Args:
        name: Name of a recipe.
        file: The copy; NAME.yaml here by default.
    """
    from seit.files import check_new_file, write_atomically
    from seit.recipes import find_recipe

    recipe = find_recipe(name)
    target = file or Path(f"{name}.yaml")
    check_new_file(target)
    write_atomically(target, recipe.path.read_bytes())
    say(f"copied to {target}")
