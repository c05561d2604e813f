"""Settings of the trainings below `seit tokenizer`, from a file and overriding flags."""

from typing import Any, TypeVar

from seit.cli.flags import TrainingFlags
from seit.errors import UsageError

Config = TypeVar("Config")
_NAMED = ("steps", "batch_size", "seed", "device")


def flat_settings(kind: type[Config], flags: TrainingFlags, **own: Any) -> Config:
    """Resolve settings; ``own`` are those with a flag of the command, None if not given.

    Precedence: flags, ``--set``, the YAML file, defaults.

    Raises:
        UsageError: a setting is unknown, of the wrong type or given twice, or the file is missing.
    """
    from seit.config import build, merge, nest, parse_assignments, read_yaml

    named = {name: getattr(flags, name) for name in _NAMED} | own
    values = parse_assignments(flags.set_ or ())
    for name, value in named.items():
        if value is not None and values.setdefault(name, value) != value:
            raise UsageError(f"{name} is both {values[name]!r} and {value!r}; give it once")
    given = read_yaml(flags.config) if flags.config else {}
    return build(kind, merge(given, nest(values, origin="command line")), origin="settings")
