"""`seit duplicates STORE`."""

from seit.cli.integers import Integer
from seit.cli.output import counting_bar, print_lines, print_result, say


def command(
    store: str,
    /,
    *,
    between: tuple[str, str] | None = None,
    threshold: float = 0.8,
    most: Integer = 1000,
    json: bool = False,
) -> None:
    """Find samples of two splits that are the same or nearly so, by their tokens.

    Args:
        store: A store's folder or URL.
        between: Two splits, or one twice to search within it; all pairs of splits by default.
        threshold: Lowest score of a near-duplicate, at most 1: 0.95 finds re-encoded files, 0.8
            also slight crops and mirror images.
        most: Pairs to list; the others are only counted.
        json: Print one JSON object.
    """
    from seit.api import duplicates

    with counting_bar("comparing") as progress:
        found = duplicates(
            store, between=between, threshold=threshold, most=most, progress=progress
        )
    if found.unchecked:
        say(
            f"warning: {found.unchecked:,} pairs of similar layouts were not compared, as there "
            "are too many; there may be more near-duplicates"
        )
    if json:
        return print_result(found)
    unlisted = found.exact + found.near - len(found.pairs)
    return print_lines(
        [
            *(
                f"{pair.score:.3f} {pair.kind:<8}  {pair.first.split}: {pair.first.key}  "
                f"{pair.second.split}: {pair.second.key}"
                for pair in found.pairs
            ),
            f"{found.exact:,} exact and {found.near:,} near-duplicate pairs"
            + (f", {unlisted:,} of them not listed" if unlisted else ""),
        ]
    )
