"""Initialization from the weights of a finished run."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from seit.classes import listed, match_classes, near_names, say_near
from seit.config import flatten, to_mapping
from seit.errors import UsageError
from seit.models import is_of_head, is_vit, load_weights
from seit.shards import Store
from seit.training.config import LoopConfig, index_of_block
from seit.training.networks import check_plain
from seit.training.run import TOKENIZER_NAME, Run

_LOG = logging.getLogger(__name__)


Config = TypeVar("Config", bound=LoopConfig)


def starting_from(config: Config, init_from: str | Path | None) -> Config:
    """Return the config with its ``init_from`` replaced, if one is given."""
    return config if init_from is None else replace(config, init_from=str(init_from))


def start_from(
    model: nn.Module, run: Run, store: Store, config: LoopConfig, *, layer: str | None = None
) -> None:
    """Load the weights of ``run`` into ``model``, possibly except the classifier's.

    The classifier takes the rows of the store's classes, matched by name. It keeps its new weights
    if the run was pretrained without one or lacks some of the store's classes. With ``layer``, the
    model of ``config`` ends after this block or stage, and the classifier keeps its new weights.

    Raises:
        UsageError: the run has not finished, was trained on another tokenizer's tokens, or its
            weights are those of another model or of tuning modules.
    """
    check_tokens(run, store)
    weights = plain_weights(run)
    head = {key for key in weights if is_of_head(model, key)}
    rows = _rows_of_head(run, store) if layer is None else None
    if layer is not None:
        weights = _up_to(layer, weights, run, model)
    if rows is None:
        fresh = {key: value for key, value in model.state_dict().items() if is_of_head(model, key)}
        weights = {key: value for key, value in weights.items() if key not in head} | fresh
    elif not np.array_equal(rows, np.arange(len(run.classes))):
        taken = torch.from_numpy(rows)
        weights |= {key: weights[key].index_select(0, taken) for key in head}
    load_weights(model, weights, origin=str(run.path), reason=network_changes(config, run))


def network_changes(config: LoopConfig, run: Run) -> str:
    """Describe how the network of a config differs from that of a run; empty if it does not."""
    mine, theirs = flatten(to_mapping(config)), flatten(to_mapping(run.settings))
    names = [name for name in theirs if name.startswith("model.") and name != "model.drop_path"]
    changed = [name for name in (*names, "augment.crop_size") if mine[name] != theirs[name]]
    if "model.name" in changed:
        return (
            f"model.name is {mine['model.name']}, and the run has {theirs['model.name']}; leave "
            "--model out to take that of the run"
        )
    if not changed:
        return ""
    texts = [f"{name} is {mine[name]}, and the run has {theirs[name]}" for name in changed]
    return f"{'; '.join(texts)}; leave {'it' if len(changed) == 1 else 'these'} out"


def _up_to(layer: str, weights: dict[str, Tensor], run: Run, model: nn.Module) -> dict[str, Tensor]:
    """Return the weights without those of blocks after a layer, or those that a model has.

    Raises:
        UsageError: the run has no such block.
    """
    if not is_vit(model):
        names = model.state_dict().keys()
        return {key: one for key, one in weights.items() if key in names}
    last = index_of_block(layer)
    number_of = {key: key.split(".")[1] for key in weights if key.startswith("blocks.")}
    has_blocks = all(number.isdigit() for number in number_of.values())
    count = len(set(number_of.values()))
    if not has_blocks or last >= count:
        raise UsageError(
            f"{run.path} has no layer {layer}; "
            + (
                f"its last is blocks.{count - 1}"
                if count and has_blocks
                else "`seit embed --layer` writes the features of any layer"
            )
        )
    return {key: one for key, one in weights.items() if int(number_of.get(key, 0)) <= last}


def _rows_of_head(run: Run, store: Store) -> npt.NDArray[np.int64] | None:
    """Return the rows of the run's classifier for the store's classes; None if it has none."""
    if not run.kind.classifies:
        return None
    near: dict[str, str] = {}
    try:
        match = match_classes(store.classes, run.classes)
    except UsageError as error:
        reason = str(error)
    else:
        if not match.unknown:
            return match.numbers
        near = near_names(match.unknown, run.classes)
        reason = f"it does not know {listed(match.unknown)}"
    hint = f" ({say_near(near)})" if near else ""
    _LOG.warning("the classifier of %s is not used: %s%s", run.path, reason, hint)
    return None


def plain_weights(run: Run) -> dict[str, Tensor]:
    """Return the weights of a run as those of a backbone without modules.

    Raises:
        UsageError: the run has not finished, its modules cannot be folded into weights, or
            compression changed its network.
    """
    check_plain(run)
    weights, compression = run.load_stored()
    if compression.changes_network:
        raise UsageError(
            f"{run.path} was compressed to another network than that of its settings; start from "
            "the run that it was made from"
        )
    return weights


def check_tokens(run: Run, store: Store) -> None:
    """Check that a run was trained on the tokens of a store's tokenizer, unless it takes pixels.

    Raises:
        UsageError: it was trained on others.
    """
    if run.settings.data.pixels is not None:
        return
    if run.load_tokenizer().fingerprint != store.card.tokenizer.fingerprint:
        raise UsageError(
            f"the run {run.path} was trained on another tokenizer's tokens than those of "
            f"{store.folder}; start from a run on this store, or tokenize by `seit tokenize "
            f"--tokenizer {run.path / TOKENIZER_NAME}`"
        )
