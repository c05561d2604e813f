"""`units`: k-means of a frozen layer of a speech model, one id a frame.

Units of self-supervised speech models name sounds rather than their loudness (HuBERT, Hsu et al.,
arXiv 2106.07447; GSLM, Lakhotia et al., arXiv 2102.01192). A file holds the centers and the
fingerprint of the speech model, but none of its weights and no path: the model is named again to
tokenize. Units cannot be decoded.

Legend: B windows, T samples of a window, F frames, D features, K codes, N points.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from seit.documents import as_record
from seit.errors import DamagedError, UsageError
from seit.printable import printable
from seit.tokenizers.base import AudioTokenizer
from seit.tokenizers.fitted.base import MAX_FIT_POINTS, check_codes
from seit.tokenizers.fitted.kmeans import assign, fit_kmeans
from seit.tokenizers.speech.layouts import SAMPLE_RATE
from seit.tokenizers.speech.load import HUB_PREFIX, load_speech
from seit.tokenizers.speech.network import LEAST_SAMPLES
from seit.tokenizers.speech.states import HiddenLayer

MAX_WINDOW_SECONDS = 30.0
MAX_FIT_VALUES = 64 << 20
"""Most numbers in a fit, 256 MB: points times features."""
_MAX_NAME = 200
_MAX_LAYER = 1 << 10
_MAX_FRAMES = 1 << 14


@dataclass(frozen=True, kw_only=True)
class UnitSettings:
    """Settings of a tokenizer of units.

    Attributes:
        backbone: name of the speech model, for messages alone.
        backbone_fingerprint: sha256 of its weights and settings.
        layer: number of the layer; see `HiddenLayer`.
        window: T, samples at 16 kHz.
        frames: F.

    Raises:
        ValueError: a number is out of range.
    """

    backbone: str
    backbone_fingerprint: str
    layer: int
    window: int
    frames: int

    def __post_init__(self) -> None:
        most = int(MAX_WINDOW_SECONDS * SAMPLE_RATE)
        if len(self.backbone) > _MAX_NAME or printable(self.backbone) != self.backbone:
            raise ValueError("expected a speech model named in plain text")
        if not 0 <= self.layer <= _MAX_LAYER or not LEAST_SAMPLES <= self.window <= most:
            raise ValueError(f"layer {self.layer} and a window of {self.window} samples")
        if not 1 <= self.frames <= _MAX_FRAMES:
            raise ValueError(f"{self.frames} frames")


class UnitTokenizer(AudioTokenizer):
    """Nearest centers of the frames of a speech model's layer; one window at a time.

    A window ends at its last sample that is not zero, so that padding changes no id: the frames
    after it get the last code, which is kept for them and is not a center. Grids are (1, F).

    ``codebook`` (K, C) holds the centers relative to the mean frame in units of the frames' RMS
    deviation, so that distances are those of the layer up to a factor; its last row is 0.
    """

    name: ClassVar[str] = "units"
    sample_rate: int = SAMPLE_RATE

    def __init__(
        self,
        codebook: Tensor,
        *,
        mean: Tensor,
        scale: Tensor,
        settings: UnitSettings,
        reader: HiddenLayer | None = None,
    ) -> None:
        """Initialize from codes (K, D), the mean frame (D,), a scale () and the layer, if known."""
        self.codebook = codebook.contiguous()
        self.window = settings.window
        self._mean_D = mean.contiguous()
        self._scale = scale
        self._settings = settings
        self._reader = reader

    @classmethod
    def fit(
        cls,
        windows: Tensor,
        reader: HiddenLayer,
        *,
        backbone: str,
        num_codes: int = 500,
        seed: int = 0,
    ) -> Self:
        """Cluster the frames of windows float32 (B, T) of sound at 16 kHz.

        Each window gives the same number of frames, drawn by ``seed``; memory is at most 256 MB.
        Of the ``num_codes`` codes, one is for frames after the end of a clip.

        Args:
            windows: sounds, each padded with zeros after its end.
            reader: layer of the speech model.
            backbone: name of the speech model, for messages.
            num_codes: K.
            seed: seed of the choice of frames and of the clustering.

        Raises:
            UsageError: there are fewer than two frames per code.
        """
        check_codes(num_codes)
        points_ND = torch.cat(list(_drawn(windows, reader, seed=seed)))
        if len(points_ND) < 2 * num_codes:
            raise UsageError(
                f"{len(windows)} windows yield {len(points_ND):,} frames, too few for {num_codes} "
                "codes; give more sounds or fewer --codes"
            )
        mean_D = points_ND.mean(0)
        points_ND -= mean_D
        scale = points_ND.square().mean().sqrt().clamp(min=torch.finfo(torch.float32).tiny)
        points_ND /= scale
        centers = fit_kmeans(points_ND, num_codes - 1, seed=seed)
        silence = torch.zeros(1, windows.shape[1], device=mean_D.device)
        settings = UnitSettings(
            backbone=printable(backbone)[:_MAX_NAME],
            backbone_fingerprint=reader.fingerprint,
            layer=reader.layer,
            window=windows.shape[1],
            frames=reader(silence).shape[1],
        )
        codebook = torch.cat([centers, torch.zeros_like(centers[:1])])
        return cls(codebook, mean=mean_D, scale=scale, settings=settings, reader=reader)

    @property
    @override
    def grid(self) -> tuple[int, int]:
        return 1, self._settings.frames

    @property
    def padding_id(self) -> int:
        """Id of the frames after the end of a clip, K − 1."""
        return self.num_codes - 1

    @torch.no_grad()
    def features(self, wave: Tensor) -> Tensor:
        """Return the frames (f, D) of a waveform float32 (T,) before its end, f ≤ F.

        They are relative to the mean frame, in units of the RMS deviation, as the codebook.

        Raises:
            UsageError: the speech model was not named.
        """
        if self._reader is None:
            raise self.missing_backbone()
        frames = _frames(self._reader, wave.to(self.codebook.device))
        return (frames[: self._settings.frames] - self._mean_D) / self._scale

    @override
    def encode(self, waves: Tensor, /) -> Tensor:
        return torch.stack([self.ids(self.features(wave)) for wave in waves])[:, None]

    def ids(self, features_fD: Tensor) -> Tensor:
        """Return ids int64 (F,) of the features (f, D) of a window, padded."""
        found = assign(features_fD, self.codebook[:-1]) if len(features_fD) else _NO_IDS
        missing = self._settings.frames - len(features_fD)
        return functional.pad(found.to(self.codebook.device), (0, missing), value=self.padding_id)

    @override
    def decode_ids(self, tokens: Tensor, /) -> NoReturn:
        raise UsageError(
            f"units of a speech model (layer {self._settings.layer} of {self._settings.backbone}) "
            "hold no sound to decode; tokenize with mel-conv-5s for tokens that can be heard"
        )

    def with_backbone(self, backbone: str | Path, *, download: bool = False) -> Self:
        """Return a copy that can tokenize by a speech model.

        Args:
            backbone: folder of the speech model, or its name on the hub.
            download: whether a name on the hub may be downloaded.

        Raises:
            UsageError: it is another speech model than that of the fit, or there is none.
        """
        reader = HiddenLayer(load_speech(backbone, download=download), self._settings.layer)
        if reader.fingerprint != self._settings.backbone_fingerprint:
            raise UsageError(
                f"{backbone} is another speech model than that of these units, "
                f"{self._settings.backbone} with the fingerprint "
                f"{self._settings.backbone_fingerprint[:16]}… (found {reader.fingerprint[:16]}…); "
                "name the one that they were fitted on"
            )
        return self._with_reader(reader, "cpu")

    def missing_backbone(self) -> UsageError:
        """Return the error of work that needs the speech model."""
        return UsageError(
            f"units of layer {self._settings.layer} of {self._settings.backbone} need its weights "
            f"(fingerprint {self._settings.backbone_fingerprint[:16]}…), which no file of units "
            "holds; name its folder by --backbone hf:PATH"
        )

    @override
    def tensors(self) -> dict[str, Tensor]:
        return {"mean": self._mean_D, "scale": self._scale}

    @override
    def settings(self) -> dict[str, Any]:
        return asdict(self._settings)

    @override
    def preprocessing(self) -> dict[str, Any]:
        return {
            **super().preprocessing(),
            "backbone": self._settings.backbone,
            "layer": self._settings.layer,
            "frames_per_second": round(self._settings.frames * SAMPLE_RATE / self.window, 3),
        }

    @classmethod
    @override
    def restore(
        cls, codebook: Tensor, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> Self:
        try:
            found = as_record(dict(settings), UnitSettings, origin=f"a {cls.name} tokenizer")
        except (TypeError, ValueError) as error:
            raise DamagedError(
                f"the settings of a {cls.name} tokenizer are invalid ({error})"
            ) from error
        shapes = {key: (tuple(one.shape), one.dtype) for key, one in tensors.items()}
        expected = {"mean": (codebook.shape[-1:], torch.float32), "scale": ((), torch.float32)}
        if codebook.ndim != 2 or len(codebook) < 2 or shapes != expected:
            raise DamagedError(f"a {cls.name} tokenizer holds {shapes}; expected {expected}")
        if bool(codebook[-1].any()) or not float(tensors["scale"]) > 0:
            raise DamagedError(f"the codebook of a {cls.name} tokenizer has no code of padding")
        return cls(codebook, mean=tensors["mean"], scale=tensors["scale"], settings=found)

    @override
    def to(self, device: str | torch.device) -> Self:
        reader = self._reader
        if reader is not None and torch.device(device) != self.codebook.device:
            reader = copy.deepcopy(reader).to(device)
        return self._with_reader(reader, device)

    def _with_reader(self, reader: HiddenLayer | None, device: str | torch.device) -> Self:
        return type(self)(
            self.codebook.to(device),
            mean=self._mean_D.to(device),
            scale=self._scale.to(device),
            settings=self._settings,
            reader=reader,
        )


_NO_IDS = torch.zeros(0, dtype=torch.int64)


def backbone_name(backbone: str | Path) -> str:
    """Return the last part of a speech model's folder or name, to show."""
    return Path(str(backbone).removeprefix(HUB_PREFIX)).resolve().name


def _frames(reader: HiddenLayer, wave: Tensor) -> Tensor:
    """Return the frames (f, D) of a waveform (T,) up to its last sample that is not zero."""
    heard = wave.nonzero()
    if not len(heard):
        return torch.zeros(0, reader.dim, device=wave.device)
    end = int(heard[-1]) + 1
    cut = functional.pad(wave[:end], (0, max(0, LEAST_SAMPLES - end)))
    frames: Tensor = reader(cut[None])[0]
    return frames


def _drawn(windows: Tensor, reader: HiddenLayer, *, seed: int) -> Iterator[Tensor]:
    """Yield some frames (n, D) of each window, drawn by ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    most = max(1, min(MAX_FIT_POINTS, MAX_FIT_VALUES // reader.dim) // len(windows))
    for wave in windows:
        frames = _frames(reader, wave)
        chosen = torch.randperm(len(frames), generator=generator)[:most].sort().values
        yield frames[chosen.to(frames.device)]
