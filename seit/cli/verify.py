"""`seit verify STORE`."""

import sys

from seit.cli.output import counting_bar, one_line, print_lines, print_result
from seit.numbers import counted, human_bytes


def command(store: str, /, *, repair_from: str | None = None, json: bool = False) -> None:
    """Check that every byte of a store is intact; exit code 1 names shard and block if not.

    Args:
        store: A store's folder or URL.
        repair_from: A copy of the store; files that are damaged or missing are restored from it.
        json: Print one JSON object.
    """
    from seit.api import verify

    with counting_bar("verifying", "files") as progress:
        result = verify(store, repair_from=repair_from, progress=progress)
    if json:
        print_result(result)
    else:
        print_lines([f"restored: {name}" for name in result.repaired])
        for entry in result.damaged:
            where = entry.file if entry.block is None else f"{entry.file}, block {entry.block}"
            print_lines([f"damaged: {where}: {one_line(entry.reason)}"])
        if result.ok:
            print_lines([f"intact: {counted(result.blocks, 'block')}, {human_bytes(result.bytes)}"])
    if not result.ok:
        sys.exit(1)
