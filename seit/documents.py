"""Readers of small untrusted JSON and YAML documents, with limits on size, depth and time.

Run folders, recipes and tokenizers may come from anybody. They are read only from regular files
(a FIFO would block), without references that expand on resolution, and converted to the types that
the reader expects.
"""

import copy
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml
from typing_extensions import override

from seit.errors import DamagedError
from seit.files import open_plain

T = TypeVar("T")
MAX_DEPTH = 64
"""Most levels of nesting; no document of seit has more than ten."""
MAX_LINE_BYTES = 1 << 20
"""Longest line of a file of JSON lines."""
_MAX_DIGITS = 64
"""Most characters of a number in YAML: parsing sexagesimal digits takes quadratic time."""
_MAX_KEY = 256
"""Most characters of a key in YAML."""
_PLACE = re.compile(r'in "<[a-z]+ string>", ')
_RESTORE = "restore it from a copy"


def read_plain(path: Path, *, max_bytes: int) -> bytes:
    """Return the bytes of a regular file; follows a link to one.

    Raises:
        OSError: there is none, or it is a folder, FIFO, socket or device.
        ValueError: it has more than ``max_bytes`` bytes.
    """
    with open_plain(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(f"it is larger than {max_bytes:,} bytes")
    return data


def reason_of(error: BaseException) -> str:
    """Return the message of an error, without the error number and path of an OSError."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def parse_json(data: bytes | str) -> Any:
    """Parse JSON of at most `MAX_DEPTH` levels.

    Raises:
        ValueError: it is not JSON, or deeper.
    """
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep") from None
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        nested = [one for one in level if isinstance(one, dict | list)]
        if not nested:
            return value
        level = [one for inner in nested for one in _children(inner)]
    raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")


def _children(value: Any) -> Iterator[Any]:
    return iter(value.values() if isinstance(value, dict) else value)


def read_json(path: Path, shape: Any, *, max_bytes: int, advice: str = _RESTORE) -> Any:
    """Read a JSON file and check its content; keys that ``shape`` does not have are kept.

    Args:
        path: the file.
        shape: a type that msgspec converts to, such as a TypedDict.
        max_bytes: the largest size.
        advice: what to do about a damaged file, for the message.

    Raises:
        DamagedError: it cannot be read, or its content is invalid.
    """
    try:
        value = parse_json(read_plain(path, max_bytes=max_bytes))
        msgspec.convert(value, shape)
    except (OSError, ValueError, OverflowError) as error:
        raise DamagedError(f"{path} cannot be read ({reason_of(error)}); {advice}") from error
    return value


def read_json_lines(path: Path, shape: Any, *, max_bytes: int) -> Iterator[Any]:
    """Yield the values of a file of JSON lines, checked as in `read_json`.

    Skips a last line that was cut short by a kill.

    Raises:
        DamagedError: the file cannot be read, or another line is invalid.
    """
    fault, number, left = "", 0, max_bytes
    try:
        with open_plain(path) as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                if fault:
                    break
                number, left = number + 1, left - len(line)
                if left < 0:
                    fault = f"the file is larger than {max_bytes:,} bytes"
                    break
                if len(line) > MAX_LINE_BYTES:
                    fault = f"it has more than {MAX_LINE_BYTES:,} bytes"
                    break
                try:
                    value = parse_json(line)
                    msgspec.convert(value, shape)
                except (ValueError, OverflowError) as error:
                    fault = reason_of(error)
                    continue
                yield value
            else:
                fault = ""
    except OSError as error:
        raise DamagedError(f"{path} cannot be read ({reason_of(error)}); {_RESTORE}") from error
    if fault:
        raise DamagedError(f"line {number:,} of {path} cannot be read ({fault}); {_RESTORE}")


def as_record(value: Any, kind: type[T], *, origin: str, advice: str = _RESTORE) -> T:
    """Convert a value from a file; ignores keys that ``kind`` does not have.

    Raises:
        DamagedError: it is invalid.
    """
    try:
        return msgspec.convert(value, kind)
    except (ValueError, OverflowError) as error:
        raise DamagedError(f"{origin} is damaged ({reason_of(error)}); {advice}") from error


def parse_yaml(text: bytes | str) -> Any:
    """Parse one YAML document of plain values, at most `MAX_DEPTH` levels deep.

    Dates and times remain strings. Aliases, which expand on resolution, and duplicate keys are
    refused.

    Raises:
        ValueError: it is not such a document.
    """
    return copy.deepcopy(_parsed_yaml(text))


@lru_cache(maxsize=64)
def _parsed_yaml(text: bytes | str) -> Any:
    """Parse a document, cached: a command reads the settings of its run several times."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(_PLACE.sub("at ", " ".join(str(error).split()))) from error
    # PyYAML raises these for tags whose values do not fit, such as `!!bool maybe`.
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"a value does not fit its tag ({reason_of(error)})") from error


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, with limits."""

    def __init__(self, stream: bytes | str) -> None:
        super().__init__(stream)
        self._depth = 0

    @override
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise self._refusal(
                f"found the alias *{str(event.anchor)[:40]}; write out the value", event
            )
        if self._depth >= MAX_DEPTH:
            raise self._refusal(f"found more than {MAX_DEPTH} levels", event)
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    @override
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if len(key.value) > _MAX_KEY:
                raise self._refusal(f"found a key of more than {_MAX_KEY} characters", key)
            if key.value in seen:
                raise self._refusal(f"found the key {key.value!r} twice", key)
            seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """Construct an int or a float; sexagesimal ones, such as 2:4, remain strings."""
        if len(node.value) > _MAX_DIGITS:
            raise self._refusal(f"found a number of more than {_MAX_DIGITS} characters", node)
        if ":" in node.value:
            return str(node.value)
        is_int = node.tag == "tag:yaml.org,2002:int"
        return self.construct_yaml_int(node) if is_int else self.construct_yaml_float(node)

    def refuse_type(self, node: yaml.Node) -> Any:
        """Refuse a value of a type that JSON does not have."""
        raise self._refusal(f"found a value of the type {node.tag!r}", node)

    @staticmethod
    def _refusal(problem: str, found: Any) -> yaml.YAMLError:
        return yaml.MarkedYAMLError(problem=problem, problem_mark=found.start_mark)


_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name in ("binary", "omap", "pairs", "set", "timestamp"):  # types that JSON lacks
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", _Loader.refuse_type)
for _name in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", _Loader.construct_number)
