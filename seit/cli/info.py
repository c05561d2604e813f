"""`seit info STORE`."""

from collections.abc import Sequence

from seit.cli.figures import quality_parts
from seit.cli.output import counting_bar, print_result, print_table
from seit.numbers import counted, human_bytes


def command(store: str, /, *, counts: bool = False, json: bool = False) -> None:
    """Describe a store: samples, bytes, grid, tokenizer, classes, splits.

    Args:
        store: A store's folder or URL.
        counts: Also count the samples of each class, which reads all labels the first time.
        json: Print one JSON object.
    """
    from seit.api import info
    from seit.shards import token_bits

    with counting_bar("counting", "samples") as progress:
        found = info(store, counts=counts, progress=progress)
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
            ("skipped", counted(found.skipped, "unreadable input")),
            *(
                (f"{name} per class", _range(of_split, classes))
                for name, of_split in (found.class_counts or {}).items()
                if classes
            ),
        ]
    )


def _range(counts: Sequence[int], classes: Sequence[str]) -> str:
    ordered = sorted(range(len(counts)), key=lambda number: counts[number])
    least, middle, most = ordered[0], ordered[len(ordered) // 2], ordered[-1]
    text = (
        f"{counts[least]:,} ({classes[least]}) to {counts[most]:,} ({classes[most]}), median "
        f"{counts[middle]:,}"
    )
    empty = counts.count(0)
    return f"{text}; {counted(empty, 'class', 'classes')} without samples" if empty else text
