"""`config.json` of an exported model: everything that is needed to build it again."""

import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import timm
from torch import Tensor, nn

from seit.documents import as_record, read_json
from seit.errors import DamagedError, UsageError
from seit.models import build_backbone, load_weights

CONFIG_NAME = "config.json"
FORMAT = "seit-export"
VERSION = 1
MAX_CONFIG_BYTES = 1 << 26
_OWN_ARGUMENTS = frozenset(inspect.signature(timm.create_model).parameters)
"""Arguments of timm's door itself, such as paths of checkpoints; a model has none of these."""


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """The arguments of :func:`seit.models.build_backbone`."""

    name: str
    channels: int
    input_size: tuple[int, int]
    stem: str
    num_classes: int
    kwargs: dict[str, Any]

    def build(self, weights: Mapping[str, Tensor], *, origin: str) -> nn.Module:
        """Build the timm model and load its weights, which ``origin`` names in messages.

        Raises:
            UsageError: they are another model's.
        """
        model = build_backbone(
            self.name,
            channels=self.channels,
            input_size=self.input_size,
            stem=self.stem,
            num_classes=self.num_classes,
            weights=weights,
            **self.kwargs,
        )
        load_weights(model, dict(weights), origin=origin)
        return model


@dataclass(frozen=True, kw_only=True)
class TokenizerSpec:
    """The tokenizer that made what the model was trained on.

    Attributes:
        name: the kind.
        fingerprint: sha256 of it.
        codebook: shape, (K, C) or (L, K, C).
    """

    name: str
    fingerprint: str
    codebook: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ExportSpec:
    """An exported model.

    Attributes:
        model: the backbone.
        reads: what the model was trained on: token grids, or the pixels of square images.
        size: rows and columns of a stored grid (L·H, W), or of an image in pixels.
        crop_size: as in :class:`seit.augment.AugmentConfig`: what evaluation cuts out of it.
        modality: image or audio.
        preprocessing: how files become what the tokenizer takes.
        tokenizer: the tokenizer.
        classes: names, in the order of the logits.
        store: seal of the store that the run was trained on.
        settings: all settings of the run.
        result: what the run came to.
        environment: versions and hardware of the run.
        format, version: of this file.
        seit: version of seit that wrote it.
    """

    model: BackboneSpec
    reads: Literal["tokens", "pixels"]
    size: tuple[int, int]
    crop_size: int
    modality: str
    preprocessing: dict[str, Any]
    tokenizer: TokenizerSpec
    classes: tuple[str, ...]
    store: str
    settings: dict[str, Any]
    result: dict[str, Any]
    environment: dict[str, Any]
    format: str = FORMAT
    version: int = VERSION
    seit: str

    def to_json(self) -> str:
        """The text of `config.json`."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read and check `config.json` of an exported folder.

        Raises:
            UsageError: there is none, or it is of a version that this seit does not know.
            DamagedError: it is not what was written.
        """
        path = folder / CONFIG_NAME
        if not path.exists():
            raise UsageError(
                f"no exported model at {folder}: it holds no {CONFIG_NAME}; `seit export` makes one"
            )
        body = read_json(path, dict, max_bytes=MAX_CONFIG_BYTES, advice="export again")
        found = (body.get("format"), body.get("version"))
        if found != (FORMAT, VERSION):
            raise UsageError(
                f"{path} is of format {found[0]!r} version {found[1]}; this seit reads {FORMAT!r} "
                f"version {VERSION}"
            )
        spec = as_record(body, cls, origin=str(path), advice="export again")
        _check_kwargs(spec.model.kwargs, path)
        return spec


def _check_kwargs(kwargs: Mapping[str, Any], path: Path) -> None:
    """Refuse arguments that would make timm read other files."""
    for name, value in kwargs.items():
        foreign = name in _OWN_ARGUMENTS or name.startswith("pretrained")
        values = value if isinstance(value, list) else [value]
        if foreign or not all(isinstance(x, int | float | str | bool | None) for x in values):
            raise DamagedError(f"{path} passes {name}={value!r} to timm, which no export writes")
