"""Remarks on readable inputs: what was dropped or assumed.

A remark is a short constant sentence without figures, so that a job can count its inputs.
"""

from collections.abc import Callable, Mapping

Remark = Callable[[str], None]
"""Callback that receives the sentence."""


def ignore(_sentence: str, /) -> None:
    """Discard a remark."""


class InputRemarks:
    """Distinct remarks on one input, in the order made."""

    def __init__(self) -> None:
        self._sentences: dict[str, None] = {}

    def __call__(self, sentence: str, /) -> None:
        """Add a remark."""
        self._sentences[sentence] = None

    @property
    def sentences(self) -> tuple[str, ...]:
        """Sentences of the remarks."""
        return tuple(self._sentences)


class RemarkCounts:
    """Number of inputs of each remark, and the first of them."""

    def __init__(self, counts: Mapping[str, tuple[int, str]] | None = None) -> None:
        self._counts = dict(counts or {})

    def add(self, sentence: str, key: str, count: int = 1) -> None:
        """Count inputs; ``key`` names one of them."""
        before, first = self._counts.get(sentence, (0, key))
        self._counts[sentence] = before + count, first

    def merge(self, counts: Mapping[str, tuple[int, str]]) -> None:
        """Add the counts of another part of the corpus."""
        for sentence, (count, key) in counts.items():
            self.add(sentence, key, count)

    @property
    def counts(self) -> dict[str, tuple[int, str]]:
        """Remark → number of inputs, and key of the first."""
        return dict(self._counts)

    def warnings(self) -> tuple[str, ...]:
        """Return one line per remark."""
        return tuple(
            f"{count:,} {'file' if count == 1 else 'files'}, such as {key!r}: {sentence}"
            for sentence, (count, key) in self._counts.items()
        )
