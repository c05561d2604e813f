"""Import of files of naver-ai/seit into a store, block by block.

Legend: N samples, L tokens per sample, H W grid (L = H·W), K codes, C codebook dimension.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seit.errors import UsageError
from seit.progress import Count
from seit.shards import (
    CARD_NAME,
    CODEBOOK_NAME,
    MAX_BLOCK_TOKENS,
    MAX_GRID_SIDE,
    SKIPPED_NAME,
    Block,
    Card,
    PackedCodec,
    ShardRecord,
    ShardWriter,
    TokenizerInfo,
    TokenLayout,
    check_split_names,
    codebook_file,
    write_index,
    write_listed,
)
from seit.stores.official.codebook import read_codebook
from seit.stores.official.files import OfficialSplit, check_split_name, made_folder
from seit.stores.official.reader import check_file
from seit.stores.official.splits import block_samples, count_samples, decoded_blocks, read_labels

SHARD_BLOCKS = 8
"""Blocks per imported shard."""


def import_official(
    splits: Sequence[OfficialSplit],
    codebook: Path,
    store: Path,
    *,
    grid: tuple[int, int] = (32, 32),
    classes: tuple[str, ...] | None = None,
    progress: Count | None = None,
) -> Card:
    """Write a store of ``splits`` at ``store``, a new or empty folder; return its card.

    Files are decompressed block by block, so memory does not grow with them. Their format has no
    keys or class names: sample 7 of ``train`` is ``train/00000007``, and without ``classes`` label
    3 is class ``3``. After an error nothing is left in ``store``.

    Args:
        splits: splits to import, as from `find_official`.
        codebook: a file for `read_codebook`.
        store: the folder.
        grid: (H, W) of every sample.
        classes: class names, indexed by labels.
        progress: callback after each block.

    Raises:
        UsageError: invalid input, or files that do not belong together.
        DamagedError: a file is damaged.
        SeitError: a file cannot be read or written.
    """
    _check_splits(splits)
    check_file(codebook)
    codebook_KC = read_codebook(codebook)
    layout = _checked_layout(grid, len(codebook_KC))
    counts = {split.name: count_samples(split.index) for split in splits}
    labels = {split.name: read_labels(split, counts[split.name], classes) for split in splits}
    if classes is None:
        highest = max((int(column.max(initial=-1)) for column in labels.values()), default=-1)
        classes = tuple(map(str, range(highest + 1)))
    total = sum(counts.values())
    done = 0

    def advance(samples: int) -> None:
        nonlocal done
        done += samples
        if progress:
            progress(done, total)

    with _new_store(store, splits):
        records = {
            split.name: _import_split(split, labels[split.name], store, layout, advance)
            for split in splits
        }
        codebook_data = codebook_file(codebook_KC, PackedCodec(layout))
        files = write_listed(store, {CODEBOOK_NAME: codebook_data, SKIPPED_NAME: b""})
        indexes = [write_index(store, split, shards) for split, shards in records.items() if shards]
        card = Card(
            tokenizer=_describe_tokenizer(codebook_KC, grid),
            codec=PackedCodec.name,
            container="wds",
            block_samples=block_samples(layout),
            classes=classes,
            splits=records,
            files=(*files, *indexes),
            skipped=0,
            source_bytes=sum(
                path.stat().st_size
                for path in (codebook, *(path for split in splits for path in split.files))
            ),
            quality={},
            job={
                "imported_from": "naver-ai/seit files",
                "codebook": _printable_name(codebook),
                "splits": {split.name: [*map(_printable_name, split.files)] for split in splits},
            },
        )
        card.write(store)
    return card


def _printable_name(path: Path) -> str:
    """Return the name of a file as text that can be encoded as UTF-8."""
    return os.fsencode(path.name).decode(errors="replace")


def _check_splits(splits: Sequence[OfficialSplit]) -> None:
    if not splits:
        raise UsageError("no split is named to import; name at least one")
    names = [split.name for split in splits]
    for name in names:
        check_split_name(name)
        if names.count(name) > 1:
            raise UsageError(f"the split {name!r} is named twice; give each another name")
    check_split_names(names)
    for split in splits:
        for path in split.files:
            check_file(path)


def _checked_layout(grid: tuple[int, int], num_codes: int) -> TokenLayout:
    layout = TokenLayout(grid=grid, num_codes=num_codes)
    if not all(1 <= side <= MAX_GRID_SIDE for side in grid) or layout.length > MAX_BLOCK_TOKENS:
        raise UsageError(f"a grid of {grid[0]} x {grid[1]} is outside 1 to {MAX_GRID_SIDE} a side")
    return layout


def _import_split(
    split: OfficialSplit,
    labels: npt.NDArray[np.int32],
    store: Path,
    layout: TokenLayout,
    advance: Callable[[int], None],
) -> tuple[ShardRecord, ...]:
    """Write the shards of a split, of `SHARD_BLOCKS` blocks each."""
    records = []
    first = 0
    with closing(decoded_blocks(split, layout)) as blocks:
        numbered = groupby(enumerate(blocks), key=lambda entry: entry[0] // SHARD_BLOCKS)
        for index, group in numbered:
            with ShardWriter(
                store, split=split.name, index=index, codec=PackedCodec(layout)
            ) as writer:
                for _, tokens_NHW in group:
                    end = first + len(tokens_NHW)
                    unlabelled = np.full(len(tokens_NHW), -1, dtype=np.int32)
                    writer.write(
                        Block(
                            tokens=tokens_NHW,
                            labels=labels[first:end] if split.labels else unlabelled,
                            keys=tuple(f"{split.name}/{row:08d}" for row in range(first, end)),
                        )
                    )
                    first = end
                    advance(len(tokens_NHW))
            records.append(writer.record)
    return tuple(records)


def _describe_tokenizer(
    codebook_KC: npt.NDArray[np.float32], grid: tuple[int, int]
) -> TokenizerInfo:
    num_codes, dim = codebook_KC.shape
    digest = hashlib.sha256(f"codebook of naver-ai/seit files {num_codes} {dim}\n".encode())
    digest.update(codebook_KC.astype("<f4").tobytes())
    return TokenizerInfo(
        name="seit-vitvqgan" if (num_codes, dim) == (391, 32) else "official",
        fingerprint=digest.hexdigest(),
        modality="image",
        preprocessing={},
        grid=grid,
        codebook_size=num_codes,
        codebook_dim=dim,
        flip_equivariant=False,
    )


@contextmanager
def _new_store(store: Path, splits: Sequence[OfficialSplit]) -> Iterator[None]:
    """Create the folder of a store, and leave nothing in it after an error."""
    with made_folder(store):
        if any(store.iterdir()):
            raise UsageError(f"{store} is not empty; choose a new or empty folder")
        try:
            yield
        except BaseException:
            for name in (CARD_NAME, CODEBOOK_NAME, SKIPPED_NAME):
                (store / name).unlink(missing_ok=True)
            for split in splits:
                shutil.rmtree(store / split.name, ignore_errors=True)
            raise
