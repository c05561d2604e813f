"""Image networks of timm as they are, over pixels, with the evaluation transform of their settings.

Legend: B batch, D features, H W pixels.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from seit.errors import UsageError
from seit.models.timm_models import BUILD_ERRORS, instantiate, sketch, without_memory
from seit.tensors import first_not_finite
from seit.tokenizers import fetch, read_checkpoint, read_model_config

CONFIG_NAME = "config.json"
_EXPECTED = f"a folder with {CONFIG_NAME} and weights, as timm saves them, or NAME:FILE"
_SIDES = range(8, 2049)
_MAX_SIZE = 4096
_FILTERS = ("bilinear", "bicubic", "nearest", "lanczos")
_CROPS = ("center", "border", "squash")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class VisionInputs:
    """Evaluation inputs of a network, by the names of timm's settings.

    Attributes:
        input_size: (3, H, W).
        mean: of each channel, for values 0–1.
        std: of each channel.
        crop_pct: side of the crop as a share of the resized picture's.
        crop_mode: center, border or squash.
        interpolation: filter of the resize.
    """

    input_size: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    crop_pct: float = 0.875
    crop_mode: str = "center"
    interpolation: str = "bicubic"

    def transform(self) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]:
        """Return timm's transform: RGB uint8 (h, w, 3) to uint8 (3, H, W), without scaling."""
        from timm.data import create_transform

        resize: Any = create_transform(
            self.input_size,
            interpolation=self.interpolation,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
            use_prefetcher=True,
        )

        def apply(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
            return np.asarray(resize(Image.fromarray(pixels)), dtype=np.uint8)

        return apply

    def scaled(self, pixels: Tensor) -> Tensor:
        """Return pixels uint8 (B, 3, H, W) as inputs of the network, float32."""
        mean, std = (
            255 * torch.tensor(values, device=pixels.device)[:, None, None]
            for values in (self.mean, self.std)
        )
        return (pixels.float() - mean) / std


@dataclass(frozen=True)
class VisionNetwork:
    """A network of timm without its classifier.

    Attributes:
        name: name of the architecture in timm.
        settings: arguments of its constructor.
        model: the network; `forward_features` takes scaled pixels.
        inputs: its evaluation inputs.
        is_random: whether its weights are random.
    """

    name: str
    settings: Mapping[str, Any]
    model: nn.Module
    inputs: VisionInputs
    is_random: bool

    def with_random_weights(self, seed: int) -> "VisionNetwork":
        """Return the same architecture with new weights, drawn from ``seed``."""
        return replace(self, model=_drawn(self.name, self.settings, seed), is_random=True)


def load_vision(spec: str, *, download: bool = False, seed: int = 0) -> VisionNetwork:
    """Load a network of timm.

    Args:
        spec: a folder of `config.json` and weights as timm saves them for the hub; ``NAME:FILE``,
            the name of an architecture and a file of its weights; or a name alone, which gets
            random weights, or with ``download`` those of the hub.
        download: whether weights may be downloaded from the hub.
        seed: seed of random weights.

    Raises:
        UsageError: there is no such network, or its weights do not fit.
    """
    if Path(spec).is_dir():
        return _from_folder(Path(spec))
    name, mark, file = spec.partition(":")
    if mark:
        inputs = _inputs_of(name)
        return _loaded(name, {}, Path(file), inputs)
    if download:
        return _from_folder(fetch(f"hf://{_hub_name(name)}"))
    inputs = _inputs_of(name)
    return VisionNetwork(name, {}, _drawn(name, {}, seed), inputs, is_random=True)


def _from_folder(folder: Path) -> VisionNetwork:
    path = folder / CONFIG_NAME
    values = read_model_config(path, expected=_EXPECTED)
    name = values.get("architecture")
    if not isinstance(name, str):
        raise UsageError(f"{path} names no architecture of timm; give NAME:FILE instead")
    settings = values.get("model_args") or {}
    if not isinstance(settings, dict) or not all(map(_is_small, settings.values())):
        raise UsageError(f"{path} has model_args that are no small numbers or names")
    own = values.get("pretrained_cfg")
    known = own if isinstance(own, dict) else {}
    return _loaded(name, settings, folder, _parsed(known, _inputs_of(name), origin=str(path)))


def _loaded(
    name: str, settings: Mapping[str, Any], path: Path, inputs: VisionInputs
) -> VisionNetwork:
    """Build the network and load weights, except those of its classifier."""
    full = sketch(name, settings)
    weights = read_checkpoint(path, kind=f"timm's {name}")
    origin = str(weights.origin)
    with without_memory():
        wanted = instantiate(name, {**settings, "num_classes": 0}).state_dict()
    _check_fit(wanted, dict(weights), full, name=name, origin=origin)
    model = instantiate(name, {**settings, "num_classes": 0})
    model.load_state_dict({key: weights[key] for key in wanted})
    return VisionNetwork(name, settings, model.float().eval(), inputs, is_random=False)


def _check_fit(
    wanted: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    full: nn.Module,
    *,
    name: str,
    origin: str,
) -> None:
    """Raise a `UsageError` unless the weights are those of the network and perhaps a classifier."""
    missing = [key for key in wanted if key not in weights]
    heads = _classifiers(full)
    left = [key for key in weights if key not in wanted and not key.startswith(heads)]
    unlike = [key for key in wanted if key in weights and weights[key].shape != wanted[key].shape]
    if missing or left or unlike:
        detail = (
            f"{origin} lacks {missing[0]}"
            if missing
            else f"{unlike[0]} has shape {list(weights[unlike[0]].shape)} where "
            f"{list(wanted[unlike[0]].shape)} is expected"
            if unlike
            else f"{name} has no {left[0]}"
        )
        raise UsageError(f"the weights of {origin} are not those of timm's {name}: {detail}")
    bad = first_not_finite({key: weights[key] for key in wanted})
    if bad is not None:
        raise UsageError(f"the weights of {origin} are not finite ({bad}); use another file")


def _classifiers(model: nn.Module) -> tuple[str, ...]:
    """Return the prefixes of the classifier's weights."""
    names = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    found = (names,) if isinstance(names, str) else tuple(names)
    return tuple(f"{one}." for one in (*found, "head", "fc", "classifier"))


def _drawn(name: str, settings: Mapping[str, Any], seed: int) -> nn.Module:
    sketch(name, settings)  # refuses unknown names and settings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return instantiate(name, {**settings, "num_classes": 0}).float().eval()


def _inputs_of(name: str) -> VisionInputs:
    """Return the inputs that timm's registry gives for a name."""
    known: Any = sketch(name, {})
    return _parsed(dict(known.pretrained_cfg), VisionInputs(), origin=f"timm's {name}")


def _parsed(values: Mapping[str, Any], default: VisionInputs, *, origin: str) -> VisionInputs:
    """Read inputs from settings of timm, and check their ranges."""
    names = VisionInputs.__dataclass_fields__
    given = {name: values[name] for name in names if values.get(name) is not None}
    given = {key: tuple(one) if isinstance(one, list) else one for key, one in given.items()}
    found = replace(default, **given)
    sizes, means, stds = found.input_size, found.mean, found.std
    is_valid = (
        _are_numbers(sizes, 3)
        and sizes[0] == 3
        and all(side in _SIDES for side in sizes[1:])
        and _are_numbers(means, 3)
        and _are_numbers(stds, 3)
        and min(stds) > 0
        and _are_numbers((found.crop_pct,), 1)
        and 0.1 <= found.crop_pct <= 2
        and found.crop_mode in _CROPS
        and found.interpolation in _FILTERS
    )
    if not is_valid:
        raise UsageError(
            f"{origin} has no inputs that can be made from RGB pictures: {found}; use a network of "
            "three channels and 8 to 2,048 pixels a side"
        )
    return found


def _are_numbers(values: object, count: int) -> bool:
    return (
        isinstance(values, tuple)
        and len(values) == count
        and all(isinstance(one, int | float) and math.isfinite(one) for one in values)
    )


def _is_small(value: object) -> bool:
    if isinstance(value, list):
        return len(value) <= 64 and all(map(_is_small, value))
    if isinstance(value, str):
        return len(value) <= 64
    return value is None or (isinstance(value, int | float) and abs(value) <= _MAX_SIZE)


def _hub_name(name: str) -> str:
    """Return owner/name on the hub for an architecture of timm, or such a name itself."""
    if "/" in name:
        return name
    sketch(name, {})
    known: Any = timm.get_pretrained_cfg(name)
    hub = getattr(known, "hf_hub_id", None)
    if not hub:
        raise UsageError(f"timm names no weights of {name!r} on the hub; give NAME:FILE")
    return f"{hub}{known.architecture}.{known.tag}" if hub.endswith("/") else str(hub)


def check_runs(network: VisionNetwork) -> None:
    """Check, without memory, that a network takes its inputs.

    Raises:
        UsageError: it does not.
    """
    with without_memory():
        model: Any = instantiate(network.name, {**network.settings, "num_classes": 0}).eval()
    try:
        with torch.device("meta"), torch.inference_mode():
            model.forward_features(torch.zeros(1, *network.inputs.input_size))
    except BUILD_ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"timm's {network.name} does not take its own inputs of "
            f"{network.inputs.input_size}: {reason}"
        ) from error
