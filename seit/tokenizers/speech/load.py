"""Loading of speech models from folders as transformers saves them; no code of theirs is run."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seit.errors import UsageError
from seit.extras import how_to_install
from seit.tokenizers.model_config import CONFIG_NAME, read_model_config
from seit.tokenizers.published.checkpoints import fetch, read_checkpoint
from seit.tokenizers.speech.layouts import LAYOUTS, Layout
from seit.tokenizers.speech.network import STILL, SpeechNetwork

FRONT_END_NAME = "preprocessor_config.json"
HUB_PREFIX = "hf:"
_EXPECTED = "a folder with config.json and weights, as transformers saves them"
_LOG = logging.getLogger(__name__)


def load_speech(path: str | Path, *, download: bool = False) -> SpeechNetwork:
    """Load a speech model: wav2vec 2.0, HuBERT, WavLM, data2vec-audio, UniSpeech-SAT or Whisper.

    Of a model with a head, or of Whisper, the encoder alone is loaded.

    Args:
        path: a folder of `config.json` and weights, or a name on the hub.
        download: whether a name on the hub may be downloaded.

    Raises:
        UsageError: there is no such model, it is of another family, or its weights do not fit.
    """
    folder = _folder(path, download=download)
    values = read_model_config(folder / CONFIG_NAME, expected=_EXPECTED)
    kind = values.get("model_type")
    if kind not in LAYOUTS:
        raise UsageError(
            f"{folder / CONFIG_NAME} is of a model of type {kind!r}; speech models are "
            f"{', '.join(LAYOUTS)}"
        )
    layout = LAYOUTS[str(kind)]
    weights = read_checkpoint(folder, kind=str(kind))
    model = build_speech(values, layout, room=sum(one.numel() for one in weights.values()))
    _fill(model, dict(weights), layout, origin=weights.origin)
    mask = getattr(model, "masked_spec_embed", None)
    if mask is not None:  # UniSpeech-SAT has it even if it never masks
        mask.requires_grad_(False)
    return SpeechNetwork(model.float().eval(), layout, normalize=_normalizes(folder))


def random_speech(network: SpeechNetwork, *, seed: int) -> SpeechNetwork:
    """Return a network of the same settings with new weights, drawn from ``seed``."""
    model: Any = network.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twin = type(model)(model.config)
    return SpeechNetwork(twin.float().eval(), network.layout, normalize=network.normalize)


def build_speech(values: Mapping[str, Any], layout: Layout, *, room: int) -> nn.Module:
    """Build a network of transformers from its settings, with layer drop and masking off.

    Args:
        values: contents of `config.json`.
        layout: layout of its family.
        room: numbers in the checkpoint; a larger network is refused before it takes memory.

    Raises:
        UsageError: the settings are invalid, or transformers is not installed.
    """
    with _quiet_transformers() as transformers:
        try:
            config = getattr(transformers, f"{layout.class_prefix}Config").from_dict(dict(values))
            for name, value in STILL.items():
                if hasattr(config, name):
                    setattr(config, name, value)
            make = _maker(transformers, layout)
            with torch.device("meta"):
                size = sum(one.numel() for one in make(config).parameters())
            if size > room:
                raise UsageError(
                    f"the settings ask for {size:,} weights and the checkpoint holds {room:,} "
                    "numbers; they belong to different models"
                )
            model: nn.Module = make(config)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(f"transformers cannot build the speech model: {reason}") from error
    return model


def _maker(transformers: Any, layout: Layout) -> Any:
    if layout.takes_waveforms:
        return getattr(transformers, f"{layout.class_prefix}Model")
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    return WhisperEncoder


def _folder(path: str | Path, *, download: bool) -> Path:
    name = str(path).removeprefix(HUB_PREFIX)
    if Path(name).is_dir():
        return Path(name)
    if not download:
        raise UsageError(
            f"there is no folder {name}; name one with {CONFIG_NAME} and weights, or pass "
            "--download for a name on the hub"
        )
    return fetch(f"hf://{name.removeprefix('//')}")


def _normalizes(folder: Path) -> bool:
    """Return whether waveforms are scaled, by the front end's settings; True without any."""
    path = folder / FRONT_END_NAME
    if not path.is_file():
        return True
    return bool(read_model_config(path, expected=_EXPECTED).get("do_normalize", True))


def _fill(model: nn.Module, weights: dict[str, Tensor], layout: Layout, *, origin: str) -> None:
    """Load weights under their own names, or under those of a larger model.

    Raises:
        UsageError: some are missing or of another shape.
    """
    held = (one for one in layout.prefixes if any(name.startswith(one) for name in weights))
    prefix = next(held, "")
    named = _with_weight_norm(
        {
            name.removeprefix(prefix): value
            for name, value in weights.items()
            if name.startswith(prefix)
        }
    )
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in named and name != "masked_spec_embed"]
    if missing:
        raise UsageError(
            f"{origin} lacks {len(missing)} weights of the speech model, such as {missing[0]}; "
            "is it a checkpoint of another model?"
        )
    unlike = [
        name for name, one in wanted.items() if name in named and named[name].shape != one.shape
    ]
    if unlike:
        raise UsageError(
            f"{origin} holds {unlike[0]} of shape {list(named[unlike[0]].shape)} where the "
            f"settings expect {list(wanted[unlike[0]].shape)}; they belong to different models"
        )
    model.load_state_dict({name: named[name] for name in wanted if name in named}, strict=False)
    left = len(weights) - sum(name in named for name in wanted)
    if left:
        _LOG.info("%s: %d tensors of heads and decoders are not used", origin, left)


def _with_weight_norm(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the two factors of a normalized weight as torch's parametrization names them."""
    renamed = {"weight_g": "parametrizations.weight.original0"}
    renamed["weight_v"] = "parametrizations.weight.original1"
    found = {}
    for name, value in weights.items():
        head, _, last = name.rpartition(".")
        found[f"{head}.{renamed[last]}" if last in renamed else name] = value
    return found


@contextmanager
def _quiet_transformers() -> Iterator[Any]:
    try:
        import transformers
    except ImportError as error:
        raise UsageError(f"speech models need transformers; {how_to_install('speech')}") from error
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield transformers
    finally:
        transformers.logging.set_verbosity(level)
