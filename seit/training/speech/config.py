"""Settings of a run that tunes a speech model."""

import re
from dataclasses import dataclass, field

from seit.errors import UsageError
from seit.training.config import require_setting
from seit.training.tuning.config import TuneConfig

_MOST_SECONDS = 30.0
_BLOCK = re.compile(r"layers\.(0|[1-9][0-9]{0,3})")
_LEAST_SECONDS = 0.025
_MOST_PROJECTED = 1 << 14


@dataclass(frozen=True, kw_only=True)
class SpeechConfig:
    """Speech model, and the clips that it takes."""

    backbone: str = ""
    """Folder of a speech model as transformers saves it, such as hf:models/hubert-base."""
    seconds: float | None = None
    """Length of all clips: longer files are cut into several, the last padded with silence. None
    keeps the length of each clip up to 20 s, and passes clips of different lengths one by one."""
    layer: str | None = None
    """Block `layers.N` after which the classifier reads, as `seit analyze` names it; later blocks
    are dropped and a norm after them is kept. None keeps all."""
    stem_cache_bytes: int = 0
    """Memory for outputs of the frozen convolutions, which are computed once for each clip then:
    102 kB a second of sound at base size. 0 computes them at each step; not for the method `full`.
    """
    projector: int = 0
    """Width of a linear layer between frames and their mean, 256 in SUPERB; 0 for none."""


@dataclass(frozen=True, kw_only=True)
class SpeechTuneConfig(TuneConfig):
    """Settings of `seit tune SOUNDS --backbone`.

    Raises:
        UsageError: values do not fit together, or a setting of token runs is used.
    """

    speech: SpeechConfig = field(default_factory=SpeechConfig)
    """Speech model, and the clips that it takes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        seconds, projector = self.speech.seconds, self.speech.projector
        require_setting(
            seconds is None or _LEAST_SECONDS <= seconds <= _MOST_SECONDS,
            "speech.seconds",
            self,
            f"{_LEAST_SECONDS} to {_MOST_SECONDS:g}, or none",
        )
        require_setting(
            0 <= projector <= _MOST_PROJECTED,
            "speech.projector",
            self,
            f"from 0 to {_MOST_PROJECTED:,}",
        )
        if self.speech.layer is not None and _BLOCK.fullmatch(self.speech.layer) is None:
            raise UsageError(
                f"speech.layer is {self.speech.layer!r}; a classifier reads layers.0, layers.1, … "
                "of a speech model, as `seit analyze` names its blocks; --method weighted-sum "
                "reads all"
            )
        require_setting(
            self.speech.stem_cache_bytes >= 0, "speech.stem_cache_bytes", self, "at least 0"
        )
        if self.speech.stem_cache_bytes and self.tuning_class.trains_all:
            raise UsageError(
                f"speech.stem_cache_bytes is {self.speech.stem_cache_bytes:,}, but the method "
                f"{self.tuning.method} trains the convolutions too; set it to 0"
            )
        used = {
            "init_from": self.init_from,
            "data.pixels": self.data.pixels,
            "distill.teacher": self.distill.teacher,
        }
        for name, value in used.items():
            if value is not None:
                raise UsageError(
                    f"{name} is {value!r}, but a speech model takes sounds and starts from its own "
                    "weights; leave it out"
                )

    @property
    def num_blocks(self) -> int | None:
        """Number of blocks that are kept; None for all."""
        layer = self.speech.layer
        return None if layer is None else int(layer.rpartition(".")[2]) + 1
