"""Update of a store to match its source: only new and changed files are tokenized.

An ordinary, resumable job first makes a small store of them in ``.STORE.updating`` next to STORE.
The remaining and the new samples are then written as one store, which replaces STORE in one step,
so a kill at any moment leaves the old or the new store. Tokens of unchanged files are copied, never
recomputed. All shards are rewritten, which takes space for a second store.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from seit.errors import DamagedError, SeitError, UsageError
from seit.files import explained_writes
from seit.ingest.config import TokenizeConfig
from seit.ingest.input_list import (
    INPUTS_NAME,
    digest_input,
    kept_splits,
    list_inputs,
    read_inputs,
)
from seit.ingest.job import (
    JobProgress,
    NothingReadableError,
    tokenize_corpus,
)
from seit.ingest.resolve import resolve_tokenizer, with_own_backbone
from seit.ingest.result import TokenizeResult, result_of
from seit.ingest.settle import list_source
from seit.ingest.sources import Instance
from seit.ingest.upload import refuse_workdir
from seit.ingest.workspace import check_target
from seit.numbers import counted
from seit.shards import (
    CARD_NAME,
    EDITS_ENTRY,
    Block,
    Store,
    is_url,
    open_store,
    split_key,
)
from seit.stores import (
    Contents,
    Record,
    check_folder,
    chosen_blocks,
    common_shard_samples,
    edited_job,
    held_store,
    make_store,
    put_in_place,
    relabelled,
    share_of,
    skipped_lines,
)
from seit.tokenizers import ReferableTokenizer, Tokenizer, UnitTokenizer

_FIXED = (
    "codes",
    "codec",
    "container",
    "val_fraction",
    "shard_samples",
    "max_pixels",
    "max_seconds",
    "seed",
    "views",
    "compile",
    "embed_tokenizer",
    "label_separator",
)
"""Settings that an update takes from the store's job."""
_UPDATE = "update"


@dataclass(frozen=True, kw_only=True, repr=False)
class UpdateResult(TokenizeResult):
    """Outcome of an update; the inherited figures describe the whole store.

    ``added``, ``changed``, ``kept`` and ``left_out`` together are all files of the source.

    Attributes:
        added: files new to the store.
        changed: files tokenized again.
        removed: missing files, whose samples were dropped.
        kept: unchanged files, including unreadable ones.
        unreadable: added and changed files that make no sample.
        left_out: unchanged files whose samples were deleted or filtered out.
    """

    added: int
    changed: int
    removed: int
    kept: int
    unreadable: int = 0
    left_out: int = 0


class _Changes(NamedTuple):
    added: list[Instance]
    changed: list[Instance]
    kept: frozenset[str]
    removed: int
    left_out: int

    @property
    def fresh(self) -> list[Instance]:
        """Instances to tokenize."""
        return [*self.added, *self.changed]


class _Home(NamedTuple):
    """Place of a file in a store; the class of an unreadable file is unknown."""

    split: str
    class_name: str | None
    is_skipped: bool = False


class _Fresh(NamedTuple):
    """Outcome for new and changed files; ``store`` is None if none was readable."""

    store: Store | None
    skipped: list[bytes]
    samples_per_second: float
    remarks: Mapping[str, int] = MappingProxyType({})


def update_store(
    source: str | Path,
    store: str | Path,
    config: TokenizeConfig | None = None,
    *,
    changed_since: str | None = None,
    progress: JobProgress | None = None,
) -> UpdateResult:
    """Bring the finished store of an earlier state of ``source`` up to date.

    A file has changed if its size, split, class or metadata differs, or if it was modified at or
    after ``changed_since``. Stores of an earlier version record neither sizes nor metadata.
    Samples of missing files are dropped; deleted or filtered samples stay out while their files are
    unchanged. Classes stay, and new ones are appended. A label that is a number keeps its class if
    the source's first name arrives, or its last one is gone: 007 stays 7.

    Args:
        source: the corpus.
        store: a folder.
        config: working settings; the store determines the tokenizer and all that affects tokens.
        changed_since: ISO 8601 date or time, local unless it has a time zone.
        progress: callback that receives (inputs done, total inputs, inputs skipped).

    Raises:
        UsageError: invalid input, or a store of other settings or made by no job; nothing was
            changed.
        DamagedError: the store is damaged; nothing was changed.
        SeitError: the disk is full or another call is running; the same call resumes.
    """
    config = config or TokenizeConfig()
    since = None if changed_since is None else _parse_date(changed_since)
    if is_url(str(store)):
        raise UsageError(f"{store} is remote and a store is updated in place; update a local copy")
    if config.overwrite:
        raise UsageError("overwrite replaces a store and an update keeps it; choose one of them")
    refuse_workdir(store, config.workdir)
    check_target(Path(store), source)
    path = Path(store).resolve()
    with held_store(path) as (work, ended):
        return _Update(source, path, work, config, since, progress).run(ended)


class _Update:
    """Update of the store at ``path`` through the locked folder ``work``."""

    def __init__(
        self,
        source: str | Path,
        path: Path,
        work: Path,
        config: TokenizeConfig,
        since: float | None,
        progress: JobProgress | None,
    ) -> None:
        self.path = path
        self.work = work
        self.part = path.with_name(f".{path.name}.updating")
        self.store = open_store(path)
        self.since = since
        self.progress = progress
        self.config, self.tokenizer = _settle(config, self.store)
        self.corpus = list_source(
            source,
            self.config,
            kept_splits=kept_splits(self.store),
            known_classes=self.store.classes,
        )
        self.remembered = read_inputs(self.store)

    def run(self, ended: Record | None) -> UpdateResult:
        """Make the new store and replace the old one with it."""
        request = self._request()
        if ended is not None and ended["request"] == request:
            shutil.rmtree(self.part, ignore_errors=True)
            outcome = ended["outcome"]
            return UpdateResult(**{**outcome, "warnings": tuple(outcome["warnings"])})
        check_folder(self.path, self.store.card, reason="an update would remove")
        changes = self._compare()
        if not changes.fresh and not changes.removed:
            shutil.rmtree(self.part, ignore_errors=True)
            return self._result(self.store, changes, _Fresh(None, [], 0.0))
        fresh = self._tokenize(changes.fresh)
        new = self._write(changes, fresh)
        result = self._result(open_store(new), changes, fresh)
        put_in_place(self.store, self.work, request=request, outcome=asdict(result))
        shutil.rmtree(self.part, ignore_errors=True)
        return result

    def _request(self) -> str:
        text = json.dumps([_UPDATE, self.corpus.fingerprint, self.since])
        return hashlib.sha256(text.encode()).hexdigest()

    def _result(self, store: Store, changes: _Changes, fresh: _Fresh) -> UpdateResult:
        warnings = list(self.corpus.warnings)
        if self.remembered is None:
            warnings.append(
                "STORE does not record its files (made in pieces or by an earlier version): files "
                "that it holds were not checked for changes"
            )
        if changes.left_out:
            warnings.append(
                f"left out as before: {counted(changes.left_out, 'file')} of samples that were "
                "deleted or filtered"
            )
        warnings += [
            f"{counted(count, 'file')}: {sentence}" for sentence, count in fresh.remarks.items()
        ]
        return UpdateResult(
            **vars(
                result_of(store, fresh.samples_per_second, tuple(warnings), remarks=fresh.remarks)
            ),
            added=len(changes.added),
            changed=len(changes.changed),
            removed=changes.removed,
            kept=len(changes.kept),
            unreadable=len(fresh.skipped),
            left_out=changes.left_out,
        )

    def _owner(self) -> Callable[[str], str]:
        """Return a function from a sample's key to its file's key, also for windows and views."""
        modality = self.config.modality
        has_several = modality == "audio" or self.config.views > 1
        keys = {entry.key for entry in self.corpus.instances}
        return lambda key: split_key(key, modality)[0] if has_several and key not in keys else key

    def _homes(self) -> dict[str, _Home]:
        owner, classes = self._owner(), self.store.classes
        homes = {
            owner(key): _Home(name, classes[label] if label >= 0 else None)
            for name, split in self.store.items()
            for key, label in zip(split.keys, split.labels.tolist(), strict=True)
        }
        for entry, _ in skipped_lines(self.store):
            homes[entry["key"]] = _Home(entry["split"], None, is_skipped=True)
        return homes

    def _compare(self) -> _Changes:
        homes, classes = self._homes(), self.corpus.classes
        edits = self.store.card.job.get(EDITS_ENTRY, [])
        lost_some = any(_UPDATE not in edit for edit in edits)
        remembered = self.remembered or frozenset()
        added, changed, kept, left_out = [], [], [], 0
        for entry in self.corpus.instances:
            home = homes.get(entry.key)
            is_remembered = digest_input(entry, classes) in remembered
            if home is None:
                if lost_some and is_remembered:
                    left_out += 1
                else:
                    added.append(entry)
            elif (
                _is_elsewhere(entry, classes, home)
                or (self.remembered is not None and not is_remembered)
                or (self.since is not None and _modified(entry) >= self.since)
            ):
                changed.append(entry)
            else:
                kept.append(entry.key)
        if not kept and not changed:
            raise UsageError(
                f"no file of {self.store.folder} is left in {self.corpus.source}, so this is "
                "another source; name the right one, or make a new store"
            )
        removed = len(homes.keys() - {entry.key for entry in self.corpus.instances})
        return _Changes(added, changed, frozenset(kept), removed, left_out)

    def _tokenize(self, instances: Sequence[Instance]) -> _Fresh:
        if not instances:
            return _Fresh(None, [], 0.0)
        digest = hashlib.sha256(f"{self.tokenizer.fingerprint} {self._request()}".encode())
        for entry in instances:
            digest.update(digest_input(entry, self.corpus.classes))
        name = digest.hexdigest()[:16]
        if self.part.is_dir():
            for path in self.part.iterdir():
                if path.name != name:  # from another state of the source
                    shutil.rmtree(path, ignore_errors=True)
        chosen = {entry.key for entry in instances}
        corpus = replace(
            self.corpus,
            instances=tuple(entry for entry in self.corpus.instances if entry.key in chosen),
            fingerprint=digest.hexdigest(),
            warnings=(),
        )
        part = self.part / name
        try:
            made = tokenize_corpus(
                corpus, part, self.config, self.tokenizer, progress=self.progress
            )
        except NothingReadableError as error:
            return _Fresh(None, error.skipped, 0.0)
        store = open_store(part)
        return _Fresh(
            store,
            [line for _, line in skipped_lines(store)],
            made.samples_per_second,
            made.remarks,
        )

    def _write(self, changes: _Changes, fresh: _Fresh) -> Path:
        """Write the new store next to the old one."""
        card, new = self.store.card, self.work / "new"
        contents = self._contents(changes, fresh)
        make_store(contents, self.work, new, codec=card.codec, container=card.container)
        with explained_writes(new):
            shutil.copymode(self.path, new)
        return new

    def _contents(self, changes: _Changes, fresh: _Fresh) -> Contents:
        store, card, owner = self.store, self.store.card, self._owner()
        classes = tuple(dict.fromkeys((*store.classes, *self.corpus.classes)))
        places = {name: number for number, name in enumerate(classes)}
        numbers = np.array([places[name] for name in self.corpus.classes], dtype=np.int32)
        masks = {
            name: np.array([owner(key) in changes.kept for key in split.keys], dtype=bool)
            for name, split in store.items()
        }
        kept = sum(int(mask.sum()) for mask in masks.values())
        made = fresh.store

        def pieces(name: str) -> Iterator[Block]:
            if name in store:
                yield from chosen_blocks(store[name], masks[name])
            if made is not None and name in made:
                everything = np.ones(len(made[name]), dtype=bool)
                new = chosen_blocks(made[name], everything)
                yield from relabelled(new, numbers, where=made.folder)

        names = [name for name in store if masks[name].any() or (made is not None and name in made)]
        names += [name for name in made or () if name not in store]
        if not names:
            raise SeitError(
                f"none of the changed files of {self.corpus.source} can be read and no other is "
                f"left; {store.folder} is unchanged"
            )
        edit = {
            "source": card.seal,
            "added": len(changes.added),
            "changed": len(changes.changed),
            "removed": changes.removed,
        }
        old_lines = [line for entry, line in skipped_lines(store) if entry["key"] in changes.kept]
        return Contents(
            like=store,
            splits={name: pieces(name) for name in names},
            samples=kept + (made.card.samples if made is not None else 0),
            classes=classes,
            skipped=[*old_lines, *fresh.skipped],
            source_bytes=share_of(card.source_bytes, kept, card.samples)
            + (made.card.source_bytes if made is not None else 0),
            quality=card.quality,
            job=edited_job({**card.job, "source": self.corpus.fingerprint}, **{_UPDATE: edit}),
            shard_samples=common_shard_samples([store], card.block_samples),
            files={INPUTS_NAME: list_inputs(self.corpus)},
        )


def _settle(config: TokenizeConfig, store: Store) -> tuple[TokenizeConfig, Tokenizer]:
    """Return the config of the job that tokenizes new files, and the store's tokenizer.

    Raises:
        UsageError: no job made the store, or the config conflicts with it.
    """
    job, default = store.card.job, TokenizeConfig()
    edits = job.get(EDITS_ENTRY, [])
    others = [name for edit in edits for name in edit if name != _UPDATE]
    if "source" not in job or "tokenizer" not in job:
        made = "merged of others" if others else "not made by `seit tokenize`"
        raise UsageError(f"{store.folder} was {made}; update the stores of each source")
    if others and read_inputs(store) is None:
        raise UsageError(
            f"{store.folder} had samples filtered out or deleted and does not record which files "
            "it was made from (made in pieces or by an earlier version); tokenize SRC into a new "
            "store"
        )
    tokenizer = store.load_tokenizer()
    if config.tokenizer != default.tokenizer:
        _, given = resolve_tokenizer(config)
        asked = given.fingerprint if given else config.tokenizer
        if asked not in (job["tokenizer"], tokenizer.fingerprint):
            raise _other("tokenizer", config.tokenizer, job["tokenizer"])
        tokenizer = given or tokenizer
    elif isinstance(tokenizer, UnitTokenizer) or config.backbone is not None:
        tokenizer = with_own_backbone(tokenizer, config)
    if isinstance(tokenizer, ReferableTokenizer) and not tokenizer.has_weights:
        raise UsageError(
            f"{store.folder} does not hold the weights of its tokenizer; name its file with "
            "--tokenizer"
        )
    settings = {name: job.get(name, getattr(default, name)) for name in _FIXED}
    for name, value in settings.items():
        if getattr(config, name) not in (getattr(default, name), value):
            raise _other(name, getattr(config, name), value)
    if config.size not in (None, job.get("size")):
        raise _other("size", config.size, job.get("size"))
    settings |= {"codec": "packed", "container": "wds", "size": job.get("size")}
    try:
        return replace(config, inputs=tokenizer.inputs, **settings), tokenizer
    except TypeError as error:
        raise DamagedError(
            f"{store.folder.locate(CARD_NAME)} holds no settings of a job ({error}); restore it "
            "from a copy"
        ) from error


def _other(name: str, asked: object, found: object) -> UsageError:
    option = name.replace("_", "-")
    return UsageError(
        f"{name} is {asked!r} and the store was made with {found!r}, which an update cannot "
        f"change; leave --{option} out, or make a new store"
    )


def _is_elsewhere(entry: Instance, classes: tuple[str, ...], home: _Home) -> bool:
    """Return True if a file has another split or class than its samples."""
    class_name = classes[entry.label] if entry.label >= 0 else None
    return entry.split != home.split or not (home.is_skipped or class_name == home.class_name)


def _parse_date(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"{text!r} is not a date; write one such as 2026-03-31 or 2026-03-31T18:00"
        ) from None


def _modified(entry: Instance) -> float:
    """Return the modification time of a file, or of the tar that contains it."""
    assert not isinstance(entry.location, bytes), "a listing holds no bytes"
    path = entry.location if isinstance(entry.location, str) else entry.location[0]
    if is_url(path):
        raise UsageError(f"{path} is remote; dates of changes are known of local files only")
    try:
        return Path(path).stat().st_mtime
    except OSError:
        return 0.0
