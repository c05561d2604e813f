"""Configurations: frozen dataclasses ↔ mappings, files, environment and command line.

Every setting has one name, its path through the dataclasses: ``optim.lr``. It is ``lr`` under
``optim`` in YAML, ``--optim.lr`` on the command line and ``SEIT_OPTIM_LR`` in the environment.
Precedence: flags, environment, ``--config``, ``--recipe``, defaults.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from seit.documents import parse_yaml, read_plain, reason_of
from seit.errors import UsageError

T = TypeVar("T")
MAX_CONFIG_BYTES = 1 << 18
_PREFIX = "SEIT_"
_MAX_NAME = 100
"""Longest name for which similar names are searched; the time is quadratic."""


def setting_names(kind: type, prefix: str = "") -> Iterator[str]:
    """Yield the path of every setting of a nested dataclass."""
    hints = get_type_hints(kind)
    for entry in fields(kind):
        inner = hints[entry.name]
        if is_dataclass(inner):
            assert isinstance(inner, type)
            yield from setting_names(inner, f"{prefix}{entry.name}.")
        else:
            yield f"{prefix}{entry.name}"


def build(kind: type[T], values: Mapping[str, Any], *, origin: str) -> T:
    """Build a configuration from a nested mapping.

    Args:
        kind: a dataclass whose fields may be dataclasses.
        values: settings; omitted ones keep their defaults in ``kind``.
        origin: source of the values, for messages.

    Raises:
        UsageError: a setting is unknown (the message suggests the nearest name), has the wrong
            type, or is missing and has no default.
    """
    known = set(setting_names(kind))
    flat = flatten(values)
    check_names(flat, known, origin=origin)
    single = {name: [flat[name]] for name in _names_of_lists(kind) if _is_single(flat.get(name))}
    try:
        settled = merge(_defaults(kind), values, nest(single, origin=origin))
        return msgspec.convert(settled, kind, strict=False)
    except (msgspec.ValidationError, UnicodeError, OverflowError) as error:
        text = str(error).replace("`$.", "`").replace("`", "")
        text = text.replace("Invalid enum value", "Invalid value")
        choices = _choices(kind, text.rpartition(" - at ")[2])
        raise UsageError(f"{origin}: {text[0].lower()}{text[1:]}{choices}") from error


def _defaults(kind: type) -> dict[str, Any]:
    """Return the defaults of a dataclass as built-in values, without required fields."""
    found: dict[str, Any] = {}
    for entry in fields(kind):
        if entry.default_factory is not MISSING:
            found[entry.name] = entry.default_factory()
        elif entry.default is not MISSING:
            found[entry.name] = entry.default
    return {
        name: to_mapping(value) if is_dataclass(value) else msgspec.to_builtins(value)
        for name, value in found.items()
    }


def check_names(names: Iterable[str], known: set[str], *, origin: str) -> None:
    """Check that settings exist.

    Raises:
        UsageError: one does not; the message suggests the nearest name.
    """
    for name in names:
        if name in known:
            continue
        if inner := sorted(one for one in known if one.startswith(f"{name}.")):
            raise UsageError(f"{origin}: {name!r} is a group of settings: {', '.join(inner)}")
        raise UsageError(f"{origin}: there is no setting {name!r}{_nearest(name, known)}")


def _choices(kind: type, path: str) -> str:
    """List the allowed values of the setting at ``path``, if it is a choice or a list of them."""
    hint: Any = kind
    for name in path.partition("[")[0].split("."):
        hint = get_type_hints(hint).get(name) if is_dataclass(hint) else None
    options = [
        str(option)
        for part in (get_args(hint) if get_origin(hint) in (Union, UnionType, tuple) else (hint,))
        for option in (get_args(part) if get_origin(part) is Literal else ())
    ]
    return f"; choose one of {', '.join(options)}" if options else ""


def _names_of_lists(kind: type, prefix: str = "") -> Iterator[str]:
    """Yield the settings that are lists of any length; a single value needs no brackets."""
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            assert isinstance(hint, type)
            yield from _names_of_lists(hint, f"{prefix}{name}.")
        elif get_origin(hint) is tuple and get_args(hint)[1:] == (...,):
            yield f"{prefix}{name}"


def _is_single(value: Any) -> bool:
    return isinstance(value, str | int | float)


def to_mapping(config: Any) -> dict[str, Any]:
    """Convert a configuration to nested built-in values, with every setting spelled out."""
    # `asdict` first: msgspec omits a field that holds its class's default.
    mapping = msgspec.to_builtins(asdict(config))
    assert isinstance(mapping, dict)
    return mapping


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into one mapping from paths to values."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def parse_assignments(texts: Iterable[str]) -> dict[str, Any]:
    """Parse `--set NAME=VALUE` flags into a mapping.

    Raises:
        UsageError: a flag has another form.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set is {text!r}; expected NAME=VALUE")
        parsed = parse_value(value)
        if values.setdefault(name, parsed) != parsed:
            raise UsageError(f"{name} is both {values[name]!r} and {parsed!r}; give it once")
    return values


def nest(flat: Mapping[str, Any], *, origin: str) -> dict[str, Any]:
    """Nest a mapping from paths to values.

    Raises:
        UsageError: a path is both a setting and a group.
    """
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *groups, name = path.split(".")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
            if not isinstance(inner, dict):
                raise UsageError(f"{origin}: {group!r} is a setting, so it has no {path!r}")
        inner[name] = value
    return nested


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings; later ones win, setting by setting."""
    flat: dict[str, Any] = {}
    for layer in layers:
        flat.update(flatten(layer))
    return nest(flat, origin="settings")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a configuration file.

    Raises:
        UsageError: it is missing, too large, or not a mapping of settings.
    """
    try:
        data = read_plain(path, max_bytes=MAX_CONFIG_BYTES)
    except (OSError, ValueError) as error:
        raise UsageError(f"the config {path} cannot be read: {reason_of(error)}") from error
    try:
        values = parse_yaml(data)
    except ValueError as error:
        raise UsageError(f"the config {path} is not YAML of settings: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UsageError(f"the config {path} does not hold a mapping of settings")
    return values


def from_environment(kind: type, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return the settings in ``SEIT_…`` environment variables, nested."""
    flat = {
        name: parse_value(environment[variable])
        for name in setting_names(kind)
        if (variable := _variable(name)) in environment
    }
    return nest(flat, origin="environment")


def misspelled(
    kinds: Iterable[type], environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return ``SEIT_…`` variables that are no settings of ``kinds`` but like one, with its name."""
    known = {_variable(name) for kind in kinds for name in setting_names(kind)}
    near = {
        name: sorted((one for one in known if one.endswith(name.removeprefix("SEIT"))), key=len)
        or get_close_matches(name, known, n=1, cutoff=0.75)
        for name in sorted(environment)
        if name.startswith(_PREFIX) and name not in known and len(name) <= _MAX_NAME
    }
    return {name: found[0] for name, found in near.items() if found}


def _variable(name: str) -> str:
    return _PREFIX + name.replace(".", "_").upper()


def parse_value(text: str) -> Any:
    """Parse the text of a flag or variable: YAML, or ``a,b`` for a list."""
    try:
        value = parse_yaml(text)
    except ValueError:
        return text
    if isinstance(value, str) and "," in value:
        return [parse_value(part) for part in value.split(",")]
    return value


def _nearest(name: str, known: set[str]) -> str:
    near = get_close_matches(name[:_MAX_NAME], known, n=1, cutoff=0.5)
    if not near:
        near = [candidate for candidate in known if candidate.endswith(f".{name}")][:1]
    if near:
        return f"; did you mean {near[0]!r}?"
    group = f"{name.partition('.')[0]}."
    inner = [one for one in known if one.startswith(group)]
    shown = inner or {one.partition(".")[0] + (".…" if "." in one else "") for one in known}
    return f"; there are {', '.join(sorted(shown))}"
