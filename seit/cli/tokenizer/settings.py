"""Settings of the trainings below `seit tokenizer`: a file, and flags over it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

Config = TypeVar("Config")


def flat_settings(
    kind: type[Config],
    *,
    config: Path | None,
    named: Mapping[str, Any],
    assigned: list[str] | None,
) -> Config:
    """Resolve settings.

    Args:
        kind: their class.
        config: a YAML file.
        named: settings that have a flag of their own, None where it was not given; they win.
        assigned: ``NAME=VALUE`` of ``--set``, which win over the file.

    Raises:
        UsageError: a setting is unknown or of the wrong type, or the file is missing.
    """
    from seit.config import build, merge, nest, parse_assignments, read_yaml

    flags = parse_assignments(assigned or ())
    flags.update({name: value for name, value in named.items() if value is not None})
    given = read_yaml(config) if config else {}
    return build(kind, merge(given, nest(flags, origin="command line")), origin="settings")
