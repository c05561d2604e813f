"""Remarks on a finished store: larger than its files, or classes without readable files."""

from collections import Counter
from collections.abc import Sequence

from seit.ingest.plan import ShardPlan
from seit.ingest.sources import Corpus
from seit.ingest.sources.corpus import examples
from seit.ingest.sources.label_sets import labels_in
from seit.ingest.sources.labels import compare_splits
from seit.ingest.workspace import DoneShard
from seit.tokenizers import PatchTokenizer

_LEAST_SIZE = 32
_ENOUGH = 0.5
"""Largest acceptable size of the tokens as a share of the files' bytes."""


def larger_remark(
    *,
    num_bytes: float,
    token_bytes: float,
    source_bytes: float,
    tokenizer: str,
    size: int | None,
) -> str | None:
    """Return a remark with advice if a store is larger than its files, else None.

    Args:
        num_bytes: bytes of the whole store.
        token_bytes: actual or expected bytes of its shards.
        source_bytes: bytes of the files.
        tokenizer: name of its tokenizer.
        size: side of images in pixels; None for audio.
    """
    if not 0 < source_bytes < num_bytes:
        return None
    fixed = num_bytes - token_bytes
    text = f"the store is {num_bytes / source_bytes:.1f}× larger than your files"
    if token_bytes < source_bytes:
        text += f": {fixed / num_bytes:.0%} of it is the same however many files there are"
        if size is not None and tokenizer != PatchTokenizer.name:
            text += f"; less of it with --tokenizer {PatchTokenizer.name}"
        return text
    smaller = size
    while smaller is not None and smaller // 2 >= _LEAST_SIZE and size is not None:
        smaller = smaller // 2 // 8 * 8
        if token_bytes * (smaller / size) ** 2 <= _ENOUGH * source_bytes:
            break
    if smaller is None or smaller == size:
        return f"{text}, which are small already; a tokenizer of fewer codes would make it smaller"
    return (
        f"{text}; --tokenizer {PatchTokenizer.name} --size {smaller} would take about "
        f"{(smaller / (size or smaller)) ** 2:.0%} of its tokens"
    )


def class_remarks(
    corpus: Corpus, done: Sequence[tuple[ShardPlan, DoneShard]], noun: str
) -> tuple[str, ...]:
    """Return warnings about classes without readable files, in all splits or in train."""
    counts: dict[str, Counter[int]] = {}
    for plan, record in done:
        counts.setdefault(plan.split, Counter()).update(record.label_counts)
    present = set().union(*counts.values())
    if present <= {-1} and any(labels_in(one.metadata) is not None for one in corpus.instances):
        return ()  # several labels per file, which the listing has compared
    missing = [name for label, name in enumerate(corpus.classes) if label not in present]
    lines = [line for line in compare_splits(corpus.classes, counts) if line not in corpus.warnings]
    if len(missing) == 1:
        lines.insert(
            0,
            f"class {missing[0]!r} has no readable {noun}; it stays in the list of classes "
            "without samples",
        )
    elif missing:
        lines.insert(
            0,
            f"{len(missing)} classes have no readable {noun}: {examples(missing)}; they stay in "
            "the list of classes without samples",
        )
    return tuple(lines)
