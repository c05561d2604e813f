"""`seit verify STORE`."""

import sys
from dataclasses import asdict

from seit.cli.output import human_bytes, one_line, print_json, print_lines, progress_bar


def command(store: str, /, *, repair_from: str | None = None, json: bool = False) -> None:
    """Check that every byte of a store is intact; exit code 1 names shard and block if not.

    Args:
        store: A store's folder or URL.
        repair_from: A copy of the store; files that are damaged or missing are restored from it.
        json: Print one JSON object.
    """
    from seit.stores import verify_store

    with progress_bar("verifying", "files") as bar:
        result = verify_store(
            store, repair_from=repair_from, progress=lambda done, total: bar(done, total, "")
        )
    if json:
        print_json(
            {
                "ok": result.ok,
                "blocks": result.blocks,
                "bytes": result.bytes,
                "repaired": list(result.repaired),
                "damaged": [asdict(entry) for entry in result.damage],
            }
        )
    else:
        print_lines([f"restored: {name}" for name in result.repaired])
        for entry in result.damage:
            where = entry.file if entry.block is None else f"{entry.file}, block {entry.block}"
            print_lines([f"damaged: {where}: {one_line(entry.reason)}"])
        if result.ok:
            print_lines([f"intact: {result.blocks} blocks, {human_bytes(result.bytes)}"])
    if not result.ok:
        sys.exit(1)
