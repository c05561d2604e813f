"""Initialization of a run from timm's pretrained weights: a file, or a name on the hub."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from torch import nn

from seit.errors import DamagedError, UsageError
from seit.files import sha256_of
from seit.models import Loaded, load_pretrained
from seit.report import Section, table
from seit.tokenizers import fetch, read_checkpoint
from seit.training.config import TrainConfig
from seit.training.run import Run

_LOG = logging.getLogger(__name__)
HUB_PREFIX = "timm:"
_ENTRY = "pretrained"
_KIND = "timm"


@dataclass(frozen=True)
class Pretrained:
    """Weights that a run started from, as `run.json` records them.

    Attributes:
        file: the file, as given.
        fingerprint: its sha256, in hexadecimal.
        weights: names that were loaded, resampled, left fresh and not used.
    """

    file: str
    fingerprint: str
    weights: Loaded


def find_pretrained(pretrained: str, *, download: bool) -> str:
    """Return the file of pretrained weights, from the hub if it is ``timm:NAME``.

    Args:
        pretrained: a file's path, or ``timm:NAME`` with a name of timm's, such as
            ``timm:vit_small_patch16_224.augreg_in21k``.
        download: whether the hub may be asked.

    Raises:
        UsageError: the hub is named without ``download``, or has no such weights.
    """
    if not pretrained.startswith(HUB_PREFIX):
        return pretrained
    name = pretrained.removeprefix(HUB_PREFIX)
    if not download:
        raise UsageError(
            f"{pretrained} is on the hub; pass --download to fetch it, or name a local file"
        )
    from timm.models import get_pretrained_cfg, is_model

    base = name.partition(".")[0]
    found = get_pretrained_cfg(name) if is_model(base) else None
    if found is None or not found.hf_hub_id:
        raise UsageError(f"timm has no weights {name[:100]!r} on the hub; name a local file")
    repository = found.hf_hub_id if "/" in found.hf_hub_id else f"timm/{name}"
    return str(fetch(f"hf://{repository}/model.safetensors"))


def start_from_pretrained(model: nn.Module, config: TrainConfig) -> Pretrained | None:
    """Load the pretrained weights that ``config`` names into ``model``; None if it names none.

    Raises:
        UsageError: there is no such file, it is unsafe to read, or holds another model's weights.
        DamagedError: it is corrupt.
    """
    if config.pretrained is None:
        return None
    if config.pretrained.startswith(HUB_PREFIX):
        find_pretrained(config.pretrained, download=False)
    path = Path(config.pretrained)
    if not path.is_file():
        raise UsageError(f"there is no file {path} of pretrained weights")
    loaded = load_pretrained(
        model,
        config.model.name,
        read_checkpoint(path, kind=_KIND),
        origin=str(path),
        with_head=config.pretrained_head,
        **config.model.timm_kwargs(),
    )
    _LOG.info("pretrained weights of %s: %s", path, summary_of(loaded))
    return Pretrained(str(path), sha256_of(path), loaded)


def record_pretrained(run: Run, found: Pretrained) -> None:
    """Write what was loaded to `run.json`.

    Raises:
        UsageError: the run was started from other weights.
    """
    info = run.info
    known = info.get(_ENTRY)
    if isinstance(known, dict) and known.get("fingerprint") != found.fingerprint:
        raise UsageError(
            f"{found.file} holds other weights than when {run.path} was started with it; put those "
            "back, or choose another --out"
        )
    run.write_info({**info, _ENTRY: msgspec.to_builtins(found)})


def summary_of(weights: Loaded) -> str:
    """Describe what was loaded in one line."""
    parts = {
        "loaded": weights.loaded,
        "resampled": weights.resampled,
        "fresh": weights.fresh,
        "not used": weights.unused,
    }
    return ", ".join(f"{len(names):,} {what}" for what, names in parts.items())


def pretrained_sections(info: Mapping[str, Any], *, where: str) -> Sequence[Section]:
    """Return a report section of the pretrained weights; none for a run without them.

    Raises:
        DamagedError: their entry in `run.json` is corrupt.
    """
    if not info.get(_ENTRY):
        return ()
    try:
        found = msgspec.convert(info[_ENTRY], Pretrained)
    except msgspec.ValidationError as error:
        raise DamagedError(f"{where} is damaged ({error}); restore it from a copy") from error
    weights = found.weights
    rows = [
        ["file", f"{found.file}, sha256 {found.fingerprint[:12]}…"],
        ["loaded by name", f"{len(weights.loaded):,} weights"],
        ["resampled to the grid", ", ".join(weights.resampled) or "none"],
        ["new values", ", ".join(weights.fresh) or "none"],
        ["not used", ", ".join(weights.unused) or "none"],
    ]
    return (Section("Pretrained weights", table(rows, header=["what", "weights"])),)
