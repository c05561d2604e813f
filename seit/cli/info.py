"""`seit info STORE`."""

from seit.cli.figures import quality_parts
from seit.cli.output import print_result, print_table
from seit.numbers import human_bytes


def command(store: str, /, *, json: bool = False) -> None:
    """Describe a store: samples, bytes, grid, tokenizer, classes, splits.

    Args:
        store: A store's folder or URL.
        json: Print one JSON object.
    """
    from seit.api import info
    from seit.shards import token_bits

    found = info(store)
    if json:
        return print_result(found)
    classes = found.classes
    names = ", ".join(classes[:8]) + (", …" if len(classes) > 8 else "")
    height, width = found.grid
    return print_table(
        [
            ("samples", ", ".join(f"{name} {count:,}" for name, count in found.splits.items())),
            ("classes", f"{len(classes):,}: {names}" if classes else "none (unlabeled)"),
            (
                "size",
                f"{human_bytes(found.bytes)}, {found.bytes_per_sample:.0f} B per sample "
                f"({found.payload_bytes_per_sample:.0f} B in shards; files had "
                f"{human_bytes(found.source_bytes_per_sample)})",
            ),
            (
                "tokens",
                f"{height}×{width} of {found.codebook_size:,} codes, "
                f"{token_bits(found.codebook_size)} bits",
            ),
            ("tokenizer", ", ".join([found.tokenizer, *quality_parts(found.quality)])),
            ("shards", f"{found.shards} × {found.container}, {found.codec}"),
            ("skipped", f"{found.skipped:,} unreadable inputs"),
        ]
    )
