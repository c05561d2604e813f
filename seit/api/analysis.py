"""Verbs on the layers and features of networks: analyze, neighbors."""

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from seit.analysis import (
    BRAIN_NAME,
    CKA_NAME,
    LAYERS_NAME,
    SCORES,
    SPANS,
    UNFINISHED_NAME,
    AnalyzeConfig,
    AnalyzeResult,
    BrainConfig,
    BrainResult,
    CkaResult,
    NeighborsResult,
    Space,
    analyze_layers,
    codes_of,
    compare_layers,
    find_neighbors,
    groups_of,
    open_subject,
    other_subject,
    read_alignments,
    read_recordings,
    read_space,
    score_brain,
)
from seit.config import build
from seit.errors import UsageError
from seit.progress import Count

CKA, BRAIN = "cka", "brain"
_FILE = "file"
_OF_CKA = frozenset({"other", "other_data"})
_OF_BRAIN = frozenset({"responses", "mask", "atlas"})
_OF_TARGETS = frozenset({"other_data", "align", "tier", "groups"})


def analyze(
    subject: str | Path,
    *,
    data: str | Path,
    method: str = "cca",
    other: str | Path | None = None,
    other_data: str | Path | None = None,
    layers: Sequence[str] | None = None,
    align: str | Path | None = None,
    tier: str | None = None,
    responses: str | Path | None = None,
    mask: str | Path | None = None,
    atlas: str | Path | None = None,
    groups: str = _FILE,
    split: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    download: bool = False,
    progress: Count | None = None,
    **changes: Any,
) -> AnalyzeResult | CkaResult | BrainResult:
    """Score every layer of a network: against a target, other layers, or responses of a brain.

    Args:
        subject: a run's folder; ``hf:`` and the folder of a speech model; or ``timm:`` and a folder
            of timm's, an architecture and a file of weights (``timm:NAME:FILE``), or an
            architecture alone, which gets random weights.
        data: a store of the run's tokenizer; for a speech model a corpus of sounds; for a network
            of timm one of pictures.
        method: ``cca`` (held-out canonical correlation), ``svcca``, ``r2`` (variance explained),
            ``ridge`` or ``lda`` (accuracy of a probe), ``cka`` (similarity of layers), or ``brain``
            (prediction of responses).
        other: with ``cka``, another subject on the same data; by default the layers of the subject
            are compared with each other.
        other_data: data of the other subject, from the same files; by default ``data``.
        layers: paths of the modules of a network of timm to read; by default its blocks or stages.
        align: for the targets phone and word: a table of key,start,end,label, or a folder of
            TextGrids.
        tier: interval tier of the TextGrids.
        responses: for ``brain``: a folder of RUN.npy or PERSON/RUN.npy (time, targets), or of
            NIfTI files.
        mask: of NIfTI files, the voxels to predict; or
        atlas: the regions to predict, as means over their voxels.
        groups: what folds keep together: ``file``, ``folder``, or a table of key,group, such as
            speakers.
        split: the split to read; by default `val` of a store, and all of a corpus.
        out: a new folder for `layers.json` (`cka.json`) and `report.html`.
        resume: continue an interrupted analysis at ``out`` where it stopped, up to a minute before
            (``brain`` at the next layer); of a finished one, return the result.
        device: auto, cpu, cuda, mps.
        download: whether a network named on the hub may be downloaded.
        progress: called with (clips done, all clips).
        **changes: fields of `AnalyzeConfig`, such as ``target`` and ``folds``; with ``brain`` those
            of `BrainConfig`, such as ``tr``.

    Raises:
        UsageError: the network, the data and the target do not fit together.

    Example:
        >>> seit.analyze("run", data="store", method="ridge", target="label").best_layer
    """
    given = {
        "other": other,
        "other_data": other_data,
        "align": align,
        "tier": tier,
        "responses": responses,
        "mask": mask,
        "atlas": atlas,
        "groups": None if groups == _FILE else groups,
    }
    _refuse_unused(method, {name for name, value in given.items() if value is not None})
    folder = None if out is None else Path(out)
    results = {CKA: CKA_NAME, BRAIN: BRAIN_NAME}
    _check_out(folder, results.get(method, LAYERS_NAME), resume=resume)
    open_one = partial(open_subject, split=split, device=device, download=download)
    opened = open_one(subject, data, layers=layers)
    if method == CKA:
        if changes:
            raise UsageError(f"cka takes no setting {next(iter(changes))!r}; leave it out")
        if other is None and other_data is not None:
            raise UsageError("--other-data is of the subject of --with; name that too")
        second = opened if other is None else open_one(other, other_data or data)
        return compare_layers(
            opened.subject, second.subject, out=folder, resume=resume, progress=progress
        )
    if method == BRAIN:
        if responses is None or "tr" not in changes:
            raise UsageError(
                "brain needs --responses, a folder of recordings, and --tr, the seconds between "
                "their samples"
            )
        return score_brain(
            opened.subject,
            read_recordings(responses, space=_space(mask, atlas)),
            build(BrainConfig, changes, origin="settings"),
            baselines=opened.baselines,
            out=folder,
            resume=resume,
            progress=progress,
        )
    config: AnalyzeConfig = build(AnalyzeConfig, {"method": method, **changes}, origin="settings")
    named = other_subject(config.target)
    if other_data is not None and named is None:
        raise UsageError("--other-data is for the target SUBJECT@LAYER and for cka --with")
    if align is not None and config.target not in SPANS:
        raise UsageError(f"--align is for the targets {' and '.join(SPANS)}; leave it out")
    if tier is not None and align is None:
        raise UsageError("--tier is of the TextGrids of --align; name them too")
    return analyze_layers(
        opened.subject,
        config,
        baselines=opened.baselines,
        groups=groups_of(opened.subject.places, groups),
        other=None if named is None else open_one(named, other_data or data).subject,
        alignments=None if align is None else read_alignments(align, tier=tier),
        codes=codes_of(opened.subject),
        out=folder,
        resume=resume,
        progress=progress,
    )


def neighbors(
    features: str | Path,
    *,
    keys: Sequence[str] = (),
    queries: str | Path | None = None,
    k: int = 10,
    out: str | Path | None = None,
    device: str = "auto",
    progress: Count | None = None,
) -> NeighborsResult:
    """Find nearest neighbors in a file of features, or measure the classes that they predict.

    The search is exact, by cosine, in blocks: memory is bounded by a block of the file and some
    thousand queries. A sample is not its own neighbor, nor are other windows of the same clip.

    Args:
        features: a file written by `embed`.
        keys: keys of samples in it whose neighbors to list.
        queries: another such file, of the same run and layer, whose samples are the queries. With
            neither, all samples of ``features`` are queries: leave-one-out accuracy.
        k: number of neighbors.
        out: a new CSV file for the neighbors of every query.
        device: auto, cpu, cuda, mps.
        progress: called with (queries done, total).

    Raises:
        UsageError: there is no such file or key, or the two files do not fit together.
        DamagedError: a file is corrupt.

    Example:
        >>> seit.neighbors("features.safetensors", k=20).knn_top1
    """
    return find_neighbors(
        features, keys=keys, queries=queries, k=k, out=out, device=device, progress=progress
    )


def _check_out(folder: Path | None, result: str, *, resume: bool) -> None:
    """Raise a `UsageError` for a folder that holds anything but a result to resume."""
    if resume and folder is None:
        raise UsageError("--resume needs --out, where an interrupted analysis left its layers")
    if folder is None or not folder.exists():
        return
    held = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    if held and not (resume and held & {UNFINISHED_NAME, result}):
        raise UsageError(f"{folder} already exists; choose a new --out folder")


def _refuse_unused(method: str, given: Collection[str]) -> None:
    """Raise a `UsageError` for an unknown method, or for arguments that it does not take."""
    takes = {CKA: _OF_CKA, BRAIN: _OF_BRAIN} | dict.fromkeys(SCORES, _OF_TARGETS)
    if method not in takes:
        raise UsageError(f"there is no method {method!r}; there are {', '.join(takes)}")
    for name in sorted(set(given) - takes[method]):
        flag = "--with" if name == "other" else f"--{name.replace('_', '-')}"
        methods = ", ".join(one for one, names in takes.items() if name in names)
        raise UsageError(f"{method} takes no {flag}, which is for {methods}; leave it out")


def _space(mask: str | Path | None, atlas: str | Path | None) -> Space | None:
    """Return the voxels or regions of NIfTI files to read; None for other files."""
    if mask is not None and atlas is not None:
        raise UsageError("pass --mask or --atlas, not both")
    if mask is None and atlas is None:
        return None
    return read_space(atlas or mask or "", has_regions=atlas is not None)
