"""Adapter files: the weights trained by a tuning, kilobytes compared with a backbone's megabytes.

One safetensors file: the method's weights under ``tuning.``, the classifier's under ``head.``, and
as metadata the settings, the ranks and a fingerprint of their backbone.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from seit.config import build, to_mapping
from seit.errors import DamagedError, UsageError
from seit.fingerprints import fingerprint
from seit.models.classifier import is_of_head
from seit.models.tuning.base import Tuning
from seit.models.tuning.config import TuningConfig
from seit.models.tuning.registry import TUNINGS, make_tuning
from seit.tensors import read_card, write_tensors

_TUNING, _HEAD = "tuning.", "head."


def base_fingerprint(model: nn.Module) -> str:
    """Return a backbone's fingerprint: sha256 over names, dtypes, shapes and bytes of its weights.

    Args:
        model: an untuned model; its classifier does not count.
    """
    weights = {key: one for key, one in model.state_dict().items() if not is_of_head(model, key)}
    return fingerprint(weights)


def save_adapter(path: Path, model: nn.Module, tuning: Tuning) -> None:
    """Write the trained weights of a tuning and the classifier.

    Args:
        path: path of the file.
        model: the tuned model.
        tuning: the tuning attached to it.

    Raises:
        SeitError: the file cannot be written.
    """
    assert tuning.model is model, "of one another"
    tensors = {f"{_TUNING}{key}": value for key, value in tuning.kept_state().items()}
    tensors |= {f"{_HEAD}{key}": value for key, value in _head(model).items()}
    card = {
        "config": to_mapping(tuning.config),
        "ranks": tuning.ranks(),
        "base": fingerprint(tuning.base_state()),
    }
    write_tensors(path, tensors, card=card)


def load_adapter(path: Path, model: nn.Module) -> Tuning:
    """Attach an adapter written by :func:`save_adapter` to ``model``, including the classifier.

    Args:
        path: path of the file.
        model: the backbone of the adapter, untuned, with a classifier of as many classes.

    Returns:
        The tuning, attached.

    Raises:
        UsageError: there is no such file, or it is for another model; the model is unchanged.
        DamagedError: the file is corrupt; the model is unchanged.
    """
    if not path.is_file():
        raise UsageError(f"no adapter at {path}; `seit tune` writes one to a run's folder")
    card, tensors = read_card(path, finite=True)
    try:
        config = build(TuningConfig, card["config"], origin=str(path))
        base = str(card["base"])
    except (UsageError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path} is damaged ({error}); restore it from a copy") from error
    if base != base_fingerprint(model):
        raise UsageError(
            f"{path} was tuned on another backbone than this {type(model).__name__}; load the "
            "weights that it was started from first"
        )
    state = _part(tensors, _TUNING)
    _check_sizes(path, config, state)
    head, own = _part(tensors, _HEAD), _head(model)
    if {key: one.shape for key, one in head.items()} != {k: one.shape for k, one in own.items()}:
        raise UsageError(
            f"the classifier of {path} is none of this {type(model).__name__}'s; build the model "
            "with as many classes as it was tuned with"
        )
    tuning = make_tuning(config)
    tuning.attach(model)
    try:
        tuning.load_state_dict(state)
    except UsageError as error:
        tuning.detach()
        raise DamagedError(f"{path} is damaged ({error}); restore it from a copy") from error
    with torch.no_grad():
        for key, one in own.items():
            one.copy_(head[key])
    return tuning


def _check_sizes(path: Path, config: TuningConfig, state: Mapping[str, Tensor]) -> None:
    """Raise an error for settings that need more memory than the file's tensors account for."""
    setting = TUNINGS[config.method].size_setting
    size = getattr(config, setting) if setting else 0
    if size > sum(value.numel() for value in state.values()):
        raise DamagedError(
            f"{path} is damaged (its settings speak of more weights than it holds); restore it "
            "from a copy"
        )


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): one for key, one in tensors.items() if key.startswith(prefix)}


def _head(model: nn.Module) -> dict[str, Tensor]:
    return {key: one for key, one in model.state_dict().items() if is_of_head(model, key)}
