"""Permanent, in-place removal of samples from a store.

The new store is made next to the old one, in ``.STORE.deleting``, linking files without any of the
samples instead of copying them. The two folders are then exchanged in one step, and the old one is
removed, so that readers of STORE find either the old store or the new one. On a file system that
cannot exchange folders, STORE is briefly missing between two renames; the next call completes it.

A record of the request stays next to the old folder until that is removed. It tells a second call
that the exchange is done, although the store no longer holds the given keys.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError, UsageError
from seit.files import explained_writes, inside
from seit.outcomes import Outcome
from seit.progress import Count
from seit.shards import (
    CARD_NAME,
    SKIPPED_NAME,
    Card,
    FileRecord,
    LocalFolder,
    Location,
    Shard,
    ShardRecord,
    ShardWriter,
    Split,
    ZarrGroup,
    even_blocks,
    group_name,
    index_name,
    open_folder,
    open_store,
    read_card,
    write_index,
    write_listed,
    write_zarr_split,
)
from seit.stores.replace import (
    check_folder,
    held_store,
    put_in_place,
)
from seit.stores.rewrite import (
    Contents,
    common_shard_samples,
    edited_job,
    make_store,
    share_of,
    skipped_lines,
)
from seit.stores.select import KeySet, chosen_blocks, match_samples

_UNLINKABLE = (
    errno.EPERM,
    errno.EACCES,
    errno.EMLINK,
    errno.EXDEV,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
)
_Masks = Mapping[str, npt.NDArray[np.bool_]]
"""Masks of the samples to keep, by split."""
_TAR_NAME = re.compile(r"([0-9]{5})\.tar")


@dataclass(frozen=True, repr=False)
class Deletion(Outcome):
    """Counts of removed and remaining samples.

    Attributes:
        samples: samples removed.
        skipped: lines removed from `skipped.jsonl`.
        missing: number of keys found in neither.
        remaining: samples left.
        rewritten: shards rewritten.
        bytes: bytes of all files of the store.
    """

    samples: int
    skipped: int
    missing: int
    remaining: int
    rewritten: int
    bytes: int


def delete_samples(
    location: Location,
    keys: Iterable[str],
    *,
    missing: Literal["error", "ok"] = "error",
    refit: bool = False,
    progress: Count | None = None,
) -> Deletion:
    """Remove the samples of some keys from a store, and these keys from its list of skipped inputs.

    Afterwards no file in the store's folder holds their keys, labels, metadata or tokens. A key
    ``a.wav`` includes its windows ``a.wav#0``, ``a.wav#1`` …, in all splits. Only shards with such
    samples are rewritten; a split in a Zarr group is rewritten as a whole. The tables of the codec
    ``context`` stay: they are statistics of all samples present when they were fitted. ``refit``
    fits them again and recodes everything.

    After a kill at any moment the store is the old or the new one; repeat the call to resume it.
    Nothing may write to the store meanwhile. Stores opened before raise ``ChangedError`` for data
    that is not in memory; open them again.

    Args:
        location: a store on a local disk.
        keys: keys of the samples.
        missing: ``"ok"`` ignores keys of no sample, which are an error otherwise.
        refit: fit the codec's tables to the remaining samples.
        progress: callback that receives (samples done, samples of all shards to rewrite).

    Raises:
        UsageError: there is no local store, a key is missing, or its folder holds files that the
            card does not name; nothing was changed.
        DamagedError: the store is damaged; nothing was changed.
        SeitError: the disk is full, or another call is running; the store is unchanged.
    """
    folder = open_folder(location)
    if not isinstance(folder, LocalFolder):
        raise UsageError(
            f"{folder} is not a folder on this machine, and samples are deleted in place; write a "
            "copy without them (`seit convert` it to a disk, `seit delete`, and copy it back)"
        )
    key_set = KeySet(keys)
    if not key_set.wanted:
        raise UsageError("no keys are given; name the samples to delete")
    path = folder.path.resolve()
    with held_store(path) as (work, ended):
        request = _digest(key_set, refit=refit)
        if ended is not None and ended["request"] == request:
            return Deletion(**ended["outcome"])
        return _Removal(path, work, key_set, progress).run(
            request, allows_missing=missing == "ok", refit=refit
        )


class _Removal:
    """Removal from the store at ``path`` through the locked folder ``work``."""

    def __init__(self, path: Path, work: Path, keys: KeySet, progress: Count | None) -> None:
        self.path = path
        self.work = work
        self.new = work / "new"
        self.keys = keys
        self.progress = progress
        self.store = open_store(path)
        self.rewritten = 0
        self._done = 0
        self._total = 0

    def run(self, request: str, *, allows_missing: bool, refit: bool) -> Deletion:
        """Make the new store, replace the old one with it, and remove the old one."""
        store = self.store
        _check_no_links(self.path, store.card)
        check_folder(self.path, store.card, reason="which may tell of the samples")
        kept = {name: ~match_samples(split, keys=self.keys) for name, split in store.items()}
        lines, modality = skipped_lines(store), store.card.tokenizer.modality
        kept_lines = [line for entry, line in lines if not self.keys.holds(entry["key"], modality)]
        if not allows_missing:
            self.keys.check_found(store.folder)
        remaining = sum(int(mask.sum()) for mask in kept.values())
        removed, skipped = store.card.samples - remaining, len(lines) - len(kept_lines)
        is_changed = bool(removed or skipped or refit)
        if is_changed:
            edit = {"samples": removed, "skipped": skipped, "refit": refit}
            job = edited_job(store.card.job, delete=edit)
            make = self._refit if refit else self._rewrite
            make(kept, kept_lines, job, remaining)
        deletion = Deletion(
            samples=removed,
            skipped=skipped,
            missing=len(self.keys.missing),
            remaining=remaining,
            rewritten=self.rewritten,
            bytes=open_store(self.new if is_changed else self.path).num_bytes,
        )
        if is_changed:
            put_in_place(store, self.work, request=request, outcome=asdict(deletion))
        return deletion

    def _refit(
        self, kept: _Masks, lines: list[bytes], job: Mapping[str, Any], remaining: int
    ) -> None:
        """Make the new store by recoding everything."""
        card = self.store.card
        contents = Contents(
            like=self.store,
            splits={name: chosen_blocks(split, kept[name]) for name, split in self.store.items()},
            samples=remaining,
            classes=card.classes,
            skipped=lines,
            source_bytes=share_of(card.source_bytes, remaining, card.samples),
            quality=card.quality,
            job=job,
            shard_samples=common_shard_samples([self.store], card.block_samples),
        )
        make_store(
            contents,
            self.work,
            self.new,
            codec=card.codec,
            container=card.container,
            progress=self.progress,
        )
        self.rewritten = sum(map(len, read_card(self.new).splits.values()))

    def _rewrite(
        self, kept: _Masks, lines: list[bytes], job: Mapping[str, Any], remaining: int
    ) -> None:
        """Make the new store from files of the old one and from shards without the samples."""
        card = self.store.card
        touched = {name for name, mask in kept.items() if not mask.all()}
        self._total = sum(
            shard.record.samples
            for name in touched
            for shard in self.store[name].shards
            if card.container == "zarr" or not _part(kept[name], shard).all()
        )
        with explained_writes(self.new):
            self.new.mkdir()
            shutil.copymode(self.path, self.new)
        splits: dict[str, tuple[ShardRecord, ...]] = {}
        files: list[FileRecord] = []
        written: list[FileRecord] = []
        for record in card.files:
            if record.file == SKIPPED_NAME and len(lines) != card.skipped:
                files += write_listed(self.new, {SKIPPED_NAME: b"".join(lines)})
            elif not any(_is_of_split(record.file, name, card.container) for name in touched):
                self._link(record)
                files.append(record)
        for name, split in self.store.items():
            if name in touched:
                rewrite = self._group if card.container == "zarr" else self._tars
                splits[name], others = rewrite(split, kept[name])
                written += others
            else:
                splits[name] = card.splits[name]
                for shard in splits[name]:
                    self._link(shard)
        replace(
            card,
            splits=splits,
            files=(*files, *written),
            skipped=len(lines),
            source_bytes=share_of(card.source_bytes, remaining, card.samples),
            job=job,
        ).write(self.new)

    def _tars(
        self, split: Split, mask: npt.NDArray[np.bool_]
    ) -> tuple[tuple[ShardRecord, ...], list[FileRecord]]:
        records: list[ShardRecord] = []
        for number, shard in enumerate(split.shards):
            part = _part(mask, shard)
            if part.all():
                self._link(shard.record)
                records.append(shard.record)
            elif part.any():
                records.append(self._tar(split, number, mask))
        return tuple(records), [write_index(self.new, split.name, records)] if records else []

    def _tar(self, split: Split, number: int, mask: npt.NDArray[np.bool_]) -> ShardRecord:
        """Rewrite a shard under the same name."""
        shard = split.shards[number]
        file = shard.record.file
        named = _TAR_NAME.fullmatch(Path(file).name)
        index = int(named[1]) if named else number
        made = self.work / "shards"
        pieces = chosen_blocks(split, mask, shards=[shard])
        with ShardWriter(made, split=split.name, index=index, codec=self.store.codec) as writer:
            for block in even_blocks(pieces, shard.block_samples):
                writer.write(block)
        target = inside(self.new, file)
        with explained_writes(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            (made / writer.record.file).rename(target)
        self.rewritten += 1
        self._advance(shard.record.samples)
        return replace(writer.record, file=file)

    def _group(
        self, split: Split, mask: npt.NDArray[np.bool_]
    ) -> tuple[tuple[ShardRecord, ...], list[FileRecord]]:
        card = self.store.card
        chunking = ZarrGroup.of(card, split.name).chunking
        written = write_zarr_split(
            inside(self.new, group_name(split.name)),
            even_blocks(chosen_blocks(split, mask), card.block_samples),
            codec=self.store.codec,
            num_samples=int(mask.sum()),
            classes=split.classes,
            block_samples=card.block_samples,
            shard_samples=chunking.blocks_per_shard * card.block_samples,
        )
        self.rewritten += len(written.shards)
        self._advance(len(split))
        return written.shards, list(written.files)

    def _link(self, record: FileRecord) -> None:
        """Add an unchanged file to the new store, by a link if possible."""
        source, target = self.path / record.file, inside(self.new, record.file)
        with explained_writes(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except FileNotFoundError as error:
                raise DamagedError(f"{source} is missing; restore it from a copy first") from error
            except OSError as error:
                if error.errno not in _UNLINKABLE:
                    raise
                LocalFolder(self.new).upload(record.file, source, sha256=record.sha256)

    def _advance(self, samples: int) -> None:
        self._done += samples
        if self.progress:
            self.progress(self._done, self._total)


def _part(mask: npt.NDArray[np.bool_], shard: Shard) -> npt.NDArray[np.bool_]:
    return mask[shard.first_row : shard.first_row + shard.record.samples]


def _is_of_split(file: str, split: str, container: str) -> bool:
    """Return True if a file other than a shard (an index, or a group's file) belongs to a split."""
    if container == "zarr":
        return file.startswith(f"{group_name(split)}/")
    return file == index_name(split)


def _check_no_links(path: Path, card: Card) -> None:
    """Refuse links to files elsewhere, which would keep samples.

    Raises:
        UsageError: there are such links.
    """
    for name in (CARD_NAME, *(record.file for record in card.records)):
        if (path / name).resolve() != path / name:
            raise UsageError(
                f"{path / name} is a link, so that samples would stay where it leads; put the "
                "file itself there"
            )


def _digest(keys: KeySet, *, refit: bool) -> str:
    return hashlib.sha256(json.dumps([sorted(keys.wanted), refit]).encode()).hexdigest()
