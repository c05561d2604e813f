"""Placement of names next to points, with little overlap."""

from collections.abc import Sequence
from dataclasses import dataclass

_LINE = 14.0  # pixels; height of a name
_BASE = 4.0  # pixels from the middle of a name down to its baseline


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "Box") -> float:
        """Return the area of the intersection, in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)

    @property
    def area(self) -> float:
        """Area in square pixels."""
        return (self.right - self.left) * (self.bottom - self.top)


@dataclass(frozen=True)
class Place:
    """A point with a name: its position, the name's width, and the radius of its mark."""

    x: float
    y: float
    width: float
    reach: float


@dataclass(frozen=True)
class Label:
    """Position of a name: offsets of its baseline from the point, and its text anchor."""

    dx: float
    dy: float
    anchor: str
    box: Box


def place_labels(places: Sequence[Place], *, obstacles: Sequence[Box], around: Box) -> list[Label]:
    """Choose a side for the name of each point, one after the other.

    Picks the first of twelve positions with the least overlap with earlier names, marks,
    ``obstacles`` and the area outside ``around``. Takes quadratic time in the number of points.
    """
    marks = [Box(p.x - p.reach, p.y - p.reach, p.x + p.reach, p.y + p.reach) for p in places]
    taken: list[Box] = []
    labels = []
    for place in places:
        best = min(
            _candidates(place),
            key=lambda label: (
                sum(label.box.overlap(box) for box in (*taken, *marks, *obstacles))
                + 2 * (label.box.area - label.box.overlap(around))
            ),
        )
        taken.append(best.box)
        labels.append(best)
    return labels


def _candidates(place: Place) -> list[Label]:
    """Return positions to the right, left, above, below, and further away, nearest first."""
    aside, off = place.reach + 3, place.reach + _LINE / 2 + 1
    offsets = [
        (aside, 0.0, "start"),
        (-aside, 0.0, "end"),
        (0.0, -off, "middle"),
        (0.0, off, "middle"),
    ]
    for steps in (1, 2):
        for side, anchor in ((aside, "start"), (-aside, "end")):
            offsets += [(side, -steps * _LINE, anchor), (side, steps * _LINE, anchor)]
    return [_label(place, dx, dy, anchor) for dx, dy, anchor in offsets]


def _label(place: Place, dx: float, dy: float, anchor: str) -> Label:
    """Return the label with its middle line ``dy`` below the point."""
    shift = {"start": 0.0, "middle": place.width / 2, "end": place.width}[anchor]
    left, middle = place.x + dx - shift, place.y + dy
    box = Box(left, middle - _LINE / 2, left + place.width, middle + _LINE / 2)
    return Label(dx, dy + _BASE, anchor, box)
