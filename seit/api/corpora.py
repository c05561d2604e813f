"""Verbs on corpora of files: tokenize, quickstart, frontier."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from seit.analysis import (
    DEFAULT_POINTS,
    FrontierConfig,
    FrontierPlan,
    FrontierResult,
    QuickstartResult,
    plan_frontier,
    run_frontier,
    run_quickstart,
)
from seit.config import check_names, flatten, read_yaml
from seit.errors import UsageError
from seit.ingest import (
    Estimate,
    PartResult,
    TokenizeConfig,
    TokenizeResult,
    estimate_job,
    tokenize as tokenize_source,
    update_store,
)
from seit.progress import StageProgress

_PATHS = ("root", "workdir", "classes")
_SETTLED = "inputs"
"""The one field of `TokenizeConfig` that callers do not set."""


def tokenize(
    source: str | Path,
    *,
    out: str | Path,
    config: TokenizeConfig | Mapping[str, Any] | str | Path | None = None,
    update: bool = False,
    changed_since: str | None = None,
    dry_run: bool = False,
    progress: Callable[[int, int, int], None] | None = None,
    **changes: Any,
) -> TokenizeResult | PartResult | Estimate:
    """Tokenize the images or sounds of a corpus into a store; resumes an interrupted job.

    Args:
        source: a path or URL: a folder of class folders, a folder of images, a manifest,
            WebDataset tars, or files of Hugging Face datasets; see docs/inputs.md.
        out: a new or empty folder or URL outside ``source``.
        config: a YAML file's path, a mapping of settings, or a `TokenizeConfig`.
        update: bring the store at ``out`` up to date with ``source`` and keep all other tokens.
        changed_since: with ``update``, files modified at or after this date changed too.
        dry_run: estimate bytes and time from a sample; write nothing.
        progress: called with (files or pieces done, total, files skipped).
        **changes: settings by flag, such as ``size``, ``tokenizer`` or ``codec``: the fields of
            `TokenizeConfig`. They win over ``config``.

    Raises:
        UsageError: a setting is unknown (the nearest name is given), wrong input, or ``out`` holds
            something else; nothing was changed.
        SeitError: the disk is full, or no input is readable. Finished shards are kept.

    Example:
        >>> seit.tokenize("photos", out="store", size=64).bytes_per_sample
    """
    if changed_since is not None and not update:
        raise UsageError("--update-changed-since needs --update; pass both")
    if update and dry_run:
        raise UsageError("--dry-run estimates a whole job, not an update; leave one of them out")
    settings = _tokenize_config(config, changes)
    if update and settings.plan == "pieces":
        raise UsageError("--update lists SRC, which --plan pieces avoids; leave one of them out")
    if dry_run:
        return estimate_job(source, out, settings)
    if update:
        return update_store(source, out, settings, changed_since=changed_since, progress=progress)
    return tokenize_source(source, out, settings, progress=progress)


def quickstart(
    out: str | Path = "quickstart",
    *,
    data: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: StageProgress | None = None,
) -> QuickstartResult:
    """Tokenize a small corpus, train a ViT from its tokens and from its pixels, and compare.

    Without ``data`` the corpus is rendered: ten classes of textured, lit, cluttered shapes. The
    same call resumes an interrupted one.

    Args:
        out: folder for corpus, store, runs and report.
        data: a folder of class folders to use instead.
        steps: training steps of each of the two runs.
        seed: seed for corpus, weights and data order.
        device: auto, cpu, cuda, mps.
        progress: called with (stage, done, total).

    Raises:
        UsageError: ``data`` is no labeled corpus, or ``out`` holds something else.

    Example:
        >>> seit.quickstart("quickstart").bytes_ratio
    """
    return run_quickstart(out, data=data, steps=steps, seed=seed, device=device, progress=progress)


def frontier(
    source: str | Path,
    *,
    out: str | Path = "frontier",
    points: Sequence[str] | None = None,
    recipe: str = "small-cpu",
    steps: int | None = None,
    seeds: int = 3,
    seed: int = 0,
    size: int | None = None,
    codes: int = 1024,
    val_fraction: float = 0.1,
    device: str = "auto",
    workers: int | None = None,
    dry_run: bool = False,
    progress: StageProgress | None = None,
    **changes: Any,
) -> FrontierResult | FrontierPlan:
    """Train one backbone from files, JPEGs, smaller pictures, subsets and tokens, and compare.

    Draws top-1 against the bytes of the training data. The same call resumes an interrupted one;
    more points and seeds may be added.

    Args:
        source: a corpus of labeled images, as for `tokenize`.
        out: folder for copies, stores, runs, the chart and the report.
        points: what to compare, such as pixels, jpeg-10, res-1/4, subset-25, tokens-patch.
        recipe: a recipe's name.
        steps: steps of each run, instead of the recipe's length.
        seeds: runs of each point.
        seed: first of the seeds.
        size: side in pixels of the squares that tokenizers and networks see; 256 by default.
        codes: codebook size of tokens-patch.
        val_fraction: share of samples for validation where ``source`` has no splits.
        device: auto, cpu, cuda, mps.
        workers: pictures decoded at a time; one a core by default.
        dry_run: return the points with their expected bytes; train nothing.
        progress: called with (stage, done, total).
        **changes: settings of the recipe by path, such as ``**{"optim.lr": 1e-3}``.

    Raises:
        UsageError: wrong input or settings, or ``out`` holds results of other settings.

    Example:
        >>> seit.frontier("photos", points=["pixels", "tokens-patch"], dry_run=True).runs
    """
    config = FrontierConfig(
        points=tuple(points) if points is not None else DEFAULT_POINTS,
        recipe=recipe,
        settings=flatten(changes),
        steps=steps,
        seeds=seeds,
        seed=seed,
        device=device,
        size=size,
        codes=codes,
        val_fraction=val_fraction,
        workers=workers,
    )
    if dry_run:
        return FrontierPlan(plan_frontier(source, config, out=out))
    return run_frontier(source, out, config=config, progress=progress)


def _tokenize_config(config: object, changes: Mapping[str, Any]) -> TokenizeConfig:
    """Return the settings of a job, with changes."""
    if config is None:
        base = TokenizeConfig()
    elif isinstance(config, TokenizeConfig):
        base = config
    elif isinstance(config, Mapping):
        base = _changed(TokenizeConfig(), config)
    elif isinstance(config, str | Path):
        base = _changed(TokenizeConfig(), read_yaml(Path(config)))
    else:
        raise UsageError(
            f"config is {type(config).__name__}; expected the path of a YAML file, a mapping of "
            "settings, or a TokenizeConfig"
        )
    return _changed(base, changes)


def _changed(base: TokenizeConfig, changes: Mapping[str, Any]) -> TokenizeConfig:
    hints = get_type_hints(TokenizeConfig)
    known = {field.name for field in fields(base)} - {_SETTLED}
    check_names(changes, known, origin="settings")
    values: dict[str, Any] = {}
    for name, value in changes.items():
        if name in _PATHS:
            values[name] = None if value is None else Path(value)
            continue
        given = str(value) if isinstance(value, Path) else value
        try:
            values[name] = msgspec.convert(given, hints[name], strict=False)
        except msgspec.ValidationError as error:
            raise UsageError(f"settings: {name} is {value!r}: {error}") from error
    return replace(base, **values)
