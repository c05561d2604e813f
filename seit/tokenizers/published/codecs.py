"""`encodec`, `dac` and `mimi`: neural audio codecs, run by the library transformers.

Each frame of sound has one code per level; a grid is (levels, frames). Weights keep the names of
the published files, which any version of transformers can read.

Legend: B windows, T samples of a window, L levels, F frames, K codes, C codebook dim.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from typing_extensions import override

from seit.errors import DamagedError, UsageError
from seit.extras import how_to_install
from seit.tokenizers.base import AudioTokenizer
from seit.tokenizers.model_config import CONFIG_NAME, read_model_config
from seit.tokenizers.published.checkpoints import (
    MAX_WEIGHT_BYTES,
    StateDict,
    fetch,
    read_checkpoint,
)
from seit.tokenizers.published.references import ReferableTokenizer

_EXPECTED = "a folder with config.json and weights, as transformers saves them, or hf://owner/name"
_MAX_COUNT = 1024
_MAX_SIZE = 1 << 20
_MAX_SECONDS = 120.0
_MAX_LEVELS = 64
_MAX_WINDOW = 1 << 24
_NOT_OF_THE_MODEL = ("transformers_version", "_name_or_path", "architectures", "torch_dtype")


@dataclass(frozen=True)
class Window:
    """Input and output sizes of a codec tokenizer.

    Attributes:
        samples: T.
        levels: L, levels kept.
        frames: F.
    """

    samples: int
    levels: int
    frames: int


class CodecTokenizer(ReferableTokenizer, AudioTokenizer):
    """First levels of a codec; one window at a time. :meth:`decode` returns sound float32 (B, T).

    ``codebook`` is (L, K, C). Levels with separate spaces get separate dimensions, with zeros
    elsewhere, so that their sum holds all of them.

    Attributes:
        model_type: its name in configurations.
        class_prefix: its name in the classes of transformers.
        default_seconds, default_levels: defaults of a tokenizer; None for all levels.
    """

    model_type: ClassVar[str]
    class_prefix: ClassVar[str]
    default_seconds: ClassVar[float]
    default_levels: ClassVar[int | None]

    def __init__(
        self,
        codebook: Tensor,
        model: Any,
        *,
        config: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        window: Window,
        referred: str | None = None,
    ) -> None:
        """Initialize from a transformers model (None for a reference) and its published weights."""
        self.codebook = codebook.contiguous()
        self.window = window.samples
        self.sample_rate = int(config["sampling_rate"])
        self._frames = window.frames
        self._levels = window.levels
        self._model = model
        self._config = dict(config)
        self._weights = dict(weights)
        self._referred = referred

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, *, seconds: float | None = None, levels: int | None = None
    ) -> Self:
        """Build the tokenizer from ``hf://owner/name``, or a folder of ``config.json`` and weights.

        Raises:
            UsageError: there is none, or it is of another kind, or has fewer levels.
        """
        folder = fetch(path)
        config = cls._checked_config(
            read_model_config(folder / CONFIG_NAME, expected=_EXPECTED), str(folder)
        )
        found = read_checkpoint(folder, kind=cls.name)
        weights = found.replaced({key: tensor.clone() for key, tensor in found.items()})
        model = cls._build(config, weights)
        codebook = cls._codebook(model)
        if levels is None:
            levels = min(cls.default_levels or len(codebook), len(codebook))
        if not 1 <= levels <= len(codebook):
            raise UsageError(f"levels is {levels}; this {cls.name} has 1 to {len(codebook)}")
        seconds = cls.default_seconds if seconds is None else seconds
        if not 0 < seconds <= _MAX_SECONDS:
            raise UsageError(f"seconds is {seconds:g}; expected at most {_MAX_SECONDS:g}")
        hop = cls._hop(model.config)
        samples = math.ceil(seconds * config["sampling_rate"] / hop) * hop
        frames = cls._encode(model, torch.zeros(1, 1, samples), levels).shape[-1]
        window = Window(samples, levels, frames)
        kept = _kept(codebook[:levels])
        return cls(kept, model, config=config, weights=weights, window=window)

    @property
    @override
    def grid(self) -> tuple[int, int]:
        return self._levels, self._frames

    @override
    @torch.no_grad()
    def encode(self, waves: Tensor, /) -> Tensor:
        if self._model is None:
            raise self.missing_weights()
        waves = waves.to(self.codebook.device)
        return torch.cat(
            [self._encode(self._model, wave[None, None], self._levels) for wave in waves]
        )

    @override
    def decode_ids(self, tokens: Tensor, /) -> Tensor:
        if self._model is None:
            raise self.missing_weights()
        waves = [self._decode(self._model, ids[None]).reshape(-1)[: self.window] for ids in tokens]
        return torch.stack(
            [torch.nn.functional.pad(wave, (0, self.window - len(wave))) for wave in waves]
        )

    @classmethod
    @abstractmethod
    def _hop(cls, config: Any) -> int:
        """Return the samples between frames."""

    @classmethod
    @abstractmethod
    def _codebook(cls, model: Any) -> Tensor:
        """Return the codes of all levels, float32 (L, K, C)."""

    @classmethod
    @abstractmethod
    def _encode(cls, model: Any, waves: Tensor, levels: int) -> Tensor:
        """Encode waves (1, 1, T) into ids int64 (1, L, F)."""

    @classmethod
    def _decode(cls, model: Any, tokens: Tensor) -> Tensor:
        """Decode ids (1, L, F) into waves (1, 1, about T)."""
        waves: Tensor = model.decode(audio_codes=tokens).audio_values
        return waves

    @classmethod
    def _check_kind(cls, config: Any, origin: str) -> None:
        """Refuse models of the kind that cannot be a tokenizer here.

        Raises:
            UsageError: the model is one.
        """

    @classmethod
    def _checked_config(cls, config: Mapping[str, Any], origin: str) -> dict[str, Any]:
        found = config.get("model_type")
        if found != cls.model_type:
            raise UsageError(f"{origin} holds a model of type {found!r}, not {cls.model_type!r}")
        kept = {key: value for key, value in config.items() if key not in _NOT_OF_THE_MODEL}
        for key, value in kept.items():
            numbers = value if isinstance(value, list) else [value]
            limit = _MAX_COUNT if key.startswith(("num_", "n_")) else _MAX_SIZE
            if len(numbers) > _MAX_LEVELS or any(
                isinstance(number, int | float) and not abs(number) <= limit for number in numbers
            ):
                raise UsageError(f"{origin} has {key} {value}, which is implausibly large")
        rate = kept.get("sampling_rate")
        if type(rate) is not int or rate < 1:
            raise UsageError(f"{origin} has no sampling_rate in its {CONFIG_NAME}")
        return kept

    @classmethod
    def _build(cls, values: Mapping[str, Any], weights: StateDict) -> Any:
        """Build the model and load its weights, all of them and no others.

        Raises:
            UsageError: they do not fit, or transformers is missing.
        """
        with _quiet_transformers() as transformers:
            config_class = getattr(transformers, f"{cls.class_prefix}Config")
            model_class = getattr(transformers, f"{cls.class_prefix}Model")
            try:
                config = config_class.from_dict(dict(values))
                cls._check_kind(config, weights.origin)
                with torch.device("meta"):
                    shell = model_class(config)
                if 4 * sum(x.numel() for x in shell.state_dict().values()) > MAX_WEIGHT_BYTES:
                    raise weights.refusal("its configuration asks for too many weights")
                model, report = model_class.from_pretrained(
                    None, config=config, state_dict=dict(weights), output_loading_info=True
                )
            except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
                reason = " ".join(str(error).split())[:200]
                raise weights.refusal(reason) from error
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if names := sorted(map(str, report[what])):
                raise weights.refusal(f"{what.replace('_', ' ')}: {', '.join(names[:3])}")
        return model.float().eval().requires_grad_(False)

    @override
    def tensors(self) -> dict[str, Tensor]:
        return dict(self._weights)

    @override
    def settings(self) -> dict[str, Any]:
        return {
            "config": self._config,
            "window": self.window,
            "levels": self._levels,
            "frames": self._frames,
        }

    @override
    def preprocessing(self) -> dict[str, Any]:
        return {**super().preprocessing(), "values": "-1 to 1"}

    @classmethod
    @override
    def restore(
        cls, codebook: Tensor, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> Self:
        config, window = cls._parse(codebook, settings)
        try:
            model = cls._build(config, StateDict(tensors, origin="the file", kind=cls.name))
            found = _kept(cls._codebook(model)[: window.levels])
        except UsageError as error:
            raise DamagedError(f"a {cls.name} tokenizer cannot be built: {error}") from error
        if not torch.equal(found, codebook):
            raise DamagedError(f"the codebook of a {cls.name} tokenizer is not that of its weights")
        return cls(codebook, model, config=config, weights=tensors, window=window)

    @classmethod
    @override
    def reference(cls, codebook: Tensor, settings: Mapping[str, Any], fingerprint: str) -> Self:
        config, window = cls._parse(codebook, settings)
        return cls(codebook, None, config=config, weights={}, window=window, referred=fingerprint)

    @classmethod
    def _parse(cls, codebook: Tensor, settings: Mapping[str, Any]) -> tuple[dict[str, Any], Window]:
        try:
            config = cls._checked_config(settings["config"], f"a {cls.name} tokenizer")
            sizes = [settings[key] for key in ("window", "levels", "frames")]
        except (AttributeError, KeyError, TypeError, UsageError) as error:
            raise DamagedError(
                f"the settings of a {cls.name} tokenizer are invalid: {error}"
            ) from (error)
        if not all(type(size) is int and 1 <= size <= _MAX_WINDOW for size in sizes):
            raise DamagedError(f"a {cls.name} tokenizer has window, levels and frames {sizes}")
        window = Window(*sizes)
        if _levels_of(codebook) != window.levels or window.frames > window.samples:
            raise DamagedError(f"a {cls.name} tokenizer has codes {tuple(codebook.shape)}")
        return config, window

    @override
    def to(self, device: str | torch.device) -> Self:
        model = self._model
        if model is not None:
            weights = StateDict(self._weights, origin="a copy", kind=self.name)
            model = self._build(self._config, weights).to(device)
        return type(self)(
            self.codebook.to(device),
            model,
            config=self._config,
            weights=self._weights,
            window=Window(self.window, self._levels, self._frames),
            referred=self._referred,
        )


def _levels_of(codebook: Tensor) -> int:
    return codebook.shape[0] if codebook.ndim == 3 else 1


def _kept(codebook_LKC: Tensor) -> Tensor:
    """Return (L, K, C), or (K, C) of a single level, without dimensions that no level uses."""
    used_C = (codebook_LKC != 0).any(0).any(0)
    used = int(used_C.nonzero().max()) + 1 if bool(used_C.any()) else codebook_LKC.shape[2]
    kept = codebook_LKC[..., :used].clone()
    return kept[0] if len(kept) == 1 else kept


class EncodecTokenizer(CodecTokenizer):
    """EnCodec for mono sound, such as the 24 kHz model; see the module's docstring."""

    name: ClassVar[str] = "encodec"
    model_type: ClassVar[str] = "encodec"
    class_prefix: ClassVar[str] = "Encodec"
    default_seconds: ClassVar[float] = 5.0
    default_levels: ClassVar[int | None] = 2

    @classmethod
    @override
    def _check_kind(cls, config: Any, origin: str) -> None:
        if config.normalize or config.audio_channels != 1 or config.chunk_length_s is not None:
            raise UsageError(
                f"{origin} is an EnCodec for chunks or several channels or with loudness apart, "
                "which a grid of ids cannot hold; use the one for 24 kHz"
            )

    @classmethod
    @override
    def _hop(cls, config: Any) -> int:
        return math.prod(config.upsampling_ratios)

    @classmethod
    @override
    def _codebook(cls, model: Any) -> Tensor:
        return torch.stack([layer.codebook.embed for layer in model.quantizer.layers]).detach()

    @classmethod
    @override
    def _encode(cls, model: Any, waves: Tensor, levels: int) -> Tensor:
        bandwidth = max(model.config.target_bandwidths)
        ids: Tensor = model.encode(waves, bandwidth=bandwidth).audio_codes[0]
        return ids[:, :levels]

    @classmethod
    @override
    def _decode(cls, model: Any, tokens: Tensor) -> Tensor:
        waves: Tensor = model.decode(tokens[None], [None]).audio_values
        return waves


class DacTokenizer(CodecTokenizer):
    """Descript Audio Codec, whose levels have separate spaces; see the module's docstring."""

    name: ClassVar[str] = "dac"
    model_type: ClassVar[str] = "dac"
    class_prefix: ClassVar[str] = "Dac"
    default_seconds: ClassVar[float] = 1.0
    default_levels: ClassVar[int | None] = None

    @classmethod
    @override
    def _hop(cls, config: Any) -> int:
        return math.prod(config.downsampling_ratios)

    @classmethod
    @override
    def _codebook(cls, model: Any) -> Tensor:
        return _side_by_side(
            [layer.codebook.weight.detach() for layer in model.quantizer.quantizers]
        )

    @classmethod
    @override
    def _encode(cls, model: Any, waves: Tensor, levels: int) -> Tensor:
        ids: Tensor = model.encode(waves, n_quantizers=levels).audio_codes
        return ids


class MimiTokenizer(CodecTokenizer):
    """Mimi: one semantic level, then acoustic levels in another space; see the module."""

    name: ClassVar[str] = "mimi"
    model_type: ClassVar[str] = "mimi"
    class_prefix: ClassVar[str] = "Mimi"
    default_seconds: ClassVar[float] = 10.0
    default_levels: ClassVar[int | None] = 8

    @classmethod
    @override
    def _hop(cls, config: Any) -> int:
        return round(float(config.sampling_rate / config.frame_rate))

    @classmethod
    @override
    def _codebook(cls, model: Any) -> Tensor:
        quantizer = model.quantizer
        meaning, sound = (
            torch.stack([layer.codebook.embed for layer in part.layers]).detach()
            for part in (
                quantizer.semantic_residual_vector_quantizer,
                quantizer.acoustic_residual_vector_quantizer,
            )
        )
        return torch.cat(
            [
                torch.cat([meaning, torch.zeros_like(meaning)], dim=2),
                torch.cat([torch.zeros_like(sound), sound], dim=2),
            ]
        )

    @classmethod
    @override
    def _encode(cls, model: Any, waves: Tensor, levels: int) -> Tensor:
        ids: Tensor = model.encode(waves, num_quantizers=levels).audio_codes
        return ids


def _side_by_side(codes: list[Tensor]) -> Tensor:
    """Spread codes (K, C) of L levels over (L, K, L·C), each level in its own C dimensions."""
    num_codes, dim = codes[0].shape
    codebook = torch.zeros(len(codes), num_codes, len(codes) * dim)
    for level, codes_KC in enumerate(codes):
        codebook[level, :, level * dim : (level + 1) * dim] = codes_KC
    return codebook


@contextmanager
def _quiet_transformers() -> Iterator[Any]:
    """Provide transformers, without its progress bars and warnings while a model is built.

    Raises:
        UsageError: transformers is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise UsageError(
            f"audio codecs need transformers; {how_to_install('published')}"
        ) from error
    logging: Any = transformers.utils.logging
    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()
