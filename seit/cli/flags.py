"""Flags shared by all commands with a run, and printing of their settings and progress."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from seit.cli.integers import Integer
from seit.cli.output import Bar, print_json, print_lines, progress_bar
from seit.config import parse_assignments, to_mapping
from seit.errors import UsageError
from seit.progress import Progress

_OPTIONS = ("recipe", "config", "resume")
_TOP_SETTINGS = ("init_from", "method", "objective", "pretrained", "pretrained_head")
"""Settings outside any group."""
_SETTINGS = ("model", "epochs", "steps", "batch_size", "seed", "device", "init_from")


def recipe_names(_: object = None) -> list[tuple[str, str]]:
    """Return names and summaries of the recipes, for completion in a shell."""
    from seit.recipes import list_recipes

    return [(recipe.name, recipe.summary) for recipe in list_recipes()]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainingFlags:
    """Flags of every command that trains: runs, tokenizers and TokenAdapt."""

    config: Path | None = None
    """A YAML file of settings; flags win over it."""
    steps: Integer | None = None
    """Steps of training."""
    batch_size: Integer | None = None
    """Samples per step, over all devices."""
    seed: Integer | None = None
    """Seed for weights, data order and augmentation."""
    device: str | None = None
    """auto, cpu, cuda, mps."""
    resume: bool = False
    """Resume an interrupted training, if there is one."""
    dry_run: bool = False
    """Print the resolved settings as YAML and stop."""
    set_: Annotated[list[str] | None, Parameter(name="--set")] = None
    """NAME=VALUE of any setting."""
    json: bool = False
    """Print one JSON object."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class _StartFlags:
    out: Path | None = None
    """A new folder for the run."""
    recipe: Annotated[str | None, Parameter(completer=recipe_names)] = None
    """Name of a recipe; see `seit recipes list`. By default, unless --config is given, the
    command's recipe for the store's data, fitted to its grid and to few samples."""
    model: str | None = None
    """A timm backbone; of a recipe for another one only drop_path is kept. That of --init-from or
    of the recipe by default."""
    init_from: Path | None = None
    """Start from the weights of this finished run, and with its backbone."""
    epochs: Integer | None = None
    """Passes over the training split; over each task in `continual`."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunFlags(TrainingFlags, _StartFlags):  # flags of the last base come first
    """Flags of train, pretrain, tune and continual."""

    steps: Integer | None = None
    """Steps of training, instead of epochs; of each task in `continual`."""
    resume: bool = False
    """Resume the run at OUT if there is one (`--resume auto` is the same); its schedule may have
    become longer."""

    @property
    def folder(self) -> Path:
        """The run's folder.

        Raises:
            UsageError: no --out was given.
        """
        if self.out is None:
            raise UsageError("--out is missing; name a new folder for the run")
        return self.out

    def keywords(self, **own: Any) -> dict[str, Any]:
        """Return the given flags, with a command's own ones, as keyword arguments of a verb.

        Raises:
            UsageError: --set is not followed by the NAME=VALUE of a setting, or a flag has another
                value.
        """
        given = {name: getattr(self, name) for name in (*_OPTIONS, *_SETTINGS)} | own
        values = assigned_settings(self.set_)
        for name, value in given.items():
            if value is not None and values.setdefault(name, value) not in (value, str(value)):
                raise UsageError(f"{name} is {value} by its flag and {values[name]} by --set")
            if value is not None:
                values[name] = value
        return values


def assigned_settings(texts: Sequence[str] | None) -> dict[str, Any]:
    """Parse the NAME=VALUE of `--set`, by name.

    Raises:
        UsageError: a text has another form, or names a flag instead of a setting.
    """
    values = parse_assignments(texts or ())
    for name in values:
        if "." not in name and name not in _TOP_SETTINGS:
            raise UsageError(
                f"--set is {name}=…; expected the name of a setting with its group, such as "
                "optim.lr=1e-3; flags have no --set"
            )
    return values


def print_settings(
    settings: Any, *, json: bool, more: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Print resolved settings, and ``more`` groups of values, as YAML or as one JSON object."""
    import yaml

    values = {**to_mapping(settings), **(more or {})}
    if json:
        print_json(values)
    else:
        print_lines(yaml.safe_dump(_lists(values), sort_keys=False).splitlines())


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(entry) for key, entry in value.items()}
    return list(value) if isinstance(value, tuple) else value


@contextmanager
def figures_bar(description: str, notes: Mapping[str, str]) -> Iterator[Progress]:
    """Show the progress of a run with some of its figures, by name, formatted by ``notes``."""
    with progress_bar(description, "steps") as bar:
        yield noted_on(bar, notes)


def noted_on(bar: Bar, names: Mapping[str, str]) -> Progress:
    """Return a progress callback that shows formatted figures on a bar."""

    def show(done: int, total: int, figures: Mapping[str, float]) -> None:
        known = [text.format(figures[key]) for key, text in names.items() if key in figures]
        bar(done, total, ", ".join(known))

    return show
