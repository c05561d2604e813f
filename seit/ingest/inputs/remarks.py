"""Remarks: what was left out or taken for something in an input that was read all the same.

A remark is a short constant sentence without figures, so that a job can count the inputs of each.
"""

from collections.abc import Callable, Mapping

Remark = Callable[[str], None]
"""Takes the sentence."""


def ignore(_sentence: str, /) -> None:
    """Take no notice."""


class InputRemarks:
    """The different remarks on one input, in the order in which they were made."""

    def __init__(self) -> None:
        self._sentences: dict[str, None] = {}

    def __call__(self, sentence: str, /) -> None:
        """Note one."""
        self._sentences[sentence] = None

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was noted."""
        return tuple(self._sentences)


class RemarkCounts:
    """How many inputs each remark is about, and the first of them."""

    def __init__(self, counts: Mapping[str, tuple[int, str]] | None = None) -> None:
        self._counts = dict(counts or {})

    def add(self, sentence: str, key: str, count: int = 1) -> None:
        """Count inputs; ``key`` names one of them."""
        before, first = self._counts.get(sentence, (0, key))
        self._counts[sentence] = before + count, first

    def merge(self, counts: Mapping[str, tuple[int, str]]) -> None:
        """Add those of another part of the corpus."""
        for sentence, (count, key) in counts.items():
            self.add(sentence, key, count)

    @property
    def counts(self) -> dict[str, tuple[int, str]]:
        """Remark → inputs, and the key of the first."""
        return dict(self._counts)

    def warnings(self) -> tuple[str, ...]:
        """One line for each remark."""
        return tuple(
            f"{count:,} {'file' if count == 1 else 'files'}, such as {key!r}: {sentence}"
            for sentence, (count, key) in self._counts.items()
        )
