"""Lines of scores over relative depth, for the reports on layers and on brains."""

from collections.abc import Sequence

from seit.report import Series

CHANCE = "chance"


def score_lines(
    name: str, depths: Sequence[float], scores: Sequence[float], spreads: Sequence[float]
) -> list[Series]:
    """Return the line of a network with its spread; a single layer holds at every depth.

    Args:
        name: the network.
        depths: relative depth of each layer, 0–1.
        scores: score of each layer.
        spreads: half the width of the band around each.
    """
    if len(depths) == 1:
        depths, scores, spreads = (0.0, 1.0), [*scores] * 2, [*spreads] * 2
    faint = [
        Series(
            name,
            depths,
            [score + sign * spread for score, spread in zip(scores, spreads, strict=True)],
            faint=True,
        )
        for sign in (-1, 1)
    ]
    return [*faint, Series(name, depths, scores)]
