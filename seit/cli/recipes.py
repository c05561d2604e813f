"""`seit recipes list | show | copy`."""

from pathlib import Path

from cyclopts import App

from seit.cli.output import print_lines, print_table, say

command = App(
    name="recipes", help="Recipes: YAML files that fully describe a run.", help_format="markdown"
)


@command.command(name="list")
def list_() -> None:
    """List the recipes."""
    from seit.recipes import list_recipes

    print_table([(recipe.name, recipe.summary) for recipe in list_recipes()])


@command.command
def show(name: str, /) -> None:
    """Print a recipe.

    Args:
        name: Name of a recipe.
    """
    from seit.recipes import find_recipe

    print_lines(find_recipe(name).path.read_text().splitlines())


@command.command
def copy(name: str, file: Path | None = None, /) -> None:
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
