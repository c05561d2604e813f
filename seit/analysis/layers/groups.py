"""Groups that folds keep together: files, folders, or speakers from a table."""

from collections.abc import Sequence
from pathlib import Path

from seit.analysis.subjects.base import Place
from seit.errors import UsageError
from seit.ingest import read_table

COLUMNS = ("key", "group")


def groups_of(places: Sequence[Place], source: str) -> list[str]:
    """Return the group of each instance.

    Args:
        places: all instances.
        source: ``file``, ``folder`` (of the file), or a table with the columns key and group.

    Raises:
        UsageError: the table cannot be read, or lacks an instance.
    """
    if source == "file":
        return [place.file for place in places]
    if source == "folder":
        return [place.file.rpartition("/")[0] for place in places]
    path = Path(source)
    if not path.is_file():
        raise UsageError(f"--groups is {source!r}; it takes file, folder, or a table of key,group")
    columns, rows = read_table(path)
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise UsageError(f"{path} has no column {missing[0]}; a table of groups has key,group")
    key, group = (columns.index(name) for name in COLUMNS)
    known = {str(values[key]): str(values[group]) for _, values in rows}
    lacking = [place.file for place in places if place.file not in known]
    if lacking:
        raise UsageError(
            f"{path} lacks {len(lacking)} of {len(places)} instances (the first: {lacking[0]}); "
            "add a line for each"
        )
    return [known[place.file] for place in places]
