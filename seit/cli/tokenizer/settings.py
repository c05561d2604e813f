"""Settings of the trainings below `seit tokenizer`, from a file and overriding flags."""

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
        kind: class of the settings.
        config: YAML file.
        named: settings with their own flag, None if not given; they take precedence.
        assigned: ``NAME=VALUE`` of ``--set``, which take precedence over the file.

    Raises:
        UsageError: a setting is unknown or of the wrong type, or the file is missing.
    """
    from seit.config import build, merge, nest, parse_assignments, read_yaml

    flags = parse_assignments(assigned or ())
    flags.update({name: value for name, value in named.items() if value is not None})
    given = read_yaml(config) if config else {}
    return build(kind, merge(given, nest(flags, origin="command line")), origin="settings")
