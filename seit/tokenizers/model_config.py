"""Settings of a model, from the `config.json` beside its weights."""

from pathlib import Path
from typing import Any

from seit.documents import parse_json, read_plain, reason_of
from seit.errors import UsageError

CONFIG_NAME = "config.json"
_MAX_CONFIG_BYTES = 1 << 20


def read_model_config(path: Path, *, expected: str) -> dict[str, Any]:
    """Read a mapping of settings of at most 1 MiB.

    Args:
        path: the file.
        expected: what to give instead of the folder, for messages.

    Raises:
        UsageError: the file is missing, too large, not JSON or no mapping.
    """
    try:
        values = parse_json(read_plain(path, max_bytes=_MAX_CONFIG_BYTES))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({reason_of(error)}); give {expected}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path} does not hold a mapping of settings; give {expected}")
    return values
