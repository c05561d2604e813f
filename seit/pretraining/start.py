"""`seit pretrain`: learn without labels."""

import logging
from dataclasses import replace
from pathlib import Path

import torch

from seit.documents import as_record
from seit.errors import UsageError
from seit.models import disjoint_stem
from seit.pretraining.base import PretrainResult
from seit.pretraining.config import PretrainConfig
from seit.pretraining.encoder import HEADS_NAME
from seit.pretraining.registry import OBJECTIVES
from seit.progress import Progress
from seit.shards import Store, as_store
from seit.training import (
    REPORT_NAME,
    WEIGHTS_NAME,
    Objective,
    Ranks,
    has_checkpoint,
    make_augment,
    run_objective,
    starting_from,
)

_LOG = logging.getLogger(__name__)
LEAST_PATCHES = 4
"""At least this many, as some are predicted from the others."""
TEACHER_FOLDER = "teacher"
"""Subfolder of a run with self-distillation: the run of its teacher."""


def pretrain(
    config: PretrainConfig,
    store: Store | str | Path,
    *,
    out: str | Path,
    resume: bool = False,
    init_from: str | Path | None = None,
    progress: Progress | None = None,
) -> PretrainResult:
    """Pretrain an encoder on the tokens of ``store`` and write a run folder to ``out``.

    Its `model.safetensors` holds a timm backbone without its classifier; `seit.train` starts from
    it with ``init_from``. Labels are used by the probes alone.

    Arguments and errors are those of :func:`seit.training.train`. A stem of ``auto`` becomes 2/2/0,
    or 1/1/0 on grids where that leaves fewer than 49 patches, as patches must not overlap.

    Raises:
        UsageError: also if the store has codes of several levels, or the objective ``further`` no
            run to start from.
    """
    store = as_store(store)
    if store.levels > 1:
        raise UsageError(
            f"{store.folder} was made by {store.card.tokenizer.name}, of {store.levels} "
            "levels of codes; pre-training takes tokenizers of one level"
        )
    train_split = config.data.train_split
    if train_split in store and store[train_split].label_sets is not None:
        _LOG.info(
            "%s has several labels per sample: pretraining ignores them, and its probes measure no "
            "accuracy",
            store.folder,
        )
    settled, out = _settled(starting_from(config, init_from), store), Path(out)
    start = None if settled.init_from is None else Path(settled.init_from)
    teacher: Path | None = None
    objective = OBJECTIVES[settled.objective]
    if objective.teacher is not None:
        if start is None:
            raise UsageError(
                f"the objective {settled.objective} continues a finished run; name it with "
                "--init-from"
            )
        if not has_checkpoint(out, resume=resume):
            taught = replace(settled, objective=objective.teacher)
            teacher = _teach(taught, store, out, start, resume=resume, progress=progress)

    def make(ranks: Ranks, start: Path | None) -> Objective[PretrainResult]:
        return objective(settled, store, ranks, init_from=start, teacher=teacher)

    return run_objective(
        make,
        settled,
        store,
        out=out,
        resume=resume,
        files=(WEIGHTS_NAME, HEADS_NAME, REPORT_NAME),
        teacher=teacher,
        recorded=lambda figures: as_record(figures, PretrainResult, origin=f"the result in {out}"),
        progress=progress,
        beside=(TEACHER_FOLDER,),
    )


def _settled(config: PretrainConfig, store: Store) -> PretrainConfig:
    """Return the config with a stem of non-overlapping patches, if unset."""
    augment = make_augment(store, config, torch.device("cpu"), with_train=False)
    size = augment.output_size
    stem = disjoint_stem(config.model.stem, size)
    rows, columns = stem.output_size(size)
    if rows * columns < LEAST_PATCHES:
        raise UsageError(
            f"the stem {stem} makes {rows}×{columns} patches of a grid of {size[0]}×{size[1]}, and "
            f"at least {LEAST_PATCHES} are needed to predict some from others; choose a smaller "
            "one, such as --model.stem auto"
        )
    return replace(config, model=replace(config.model, stem=str(stem)))


def _teach(
    config: PretrainConfig,
    store: Store,
    out: Path,
    start: Path,
    *,
    resume: bool,
    progress: Progress | None,
) -> Path:
    """Return the run folder of the teacher, training it first if none is named."""
    if config.further.teacher is not None:
        return Path(config.further.teacher)
    if not config.further.weight:
        return start  # its features have weight 0
    folder = out / TEACHER_FOLDER
    pretrain(config, store, out=folder, resume=resume, init_from=start, progress=progress)
    return folder
