"""`config.json` of an exported model: everything needed to rebuild it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from torch import Tensor, nn

from seit import __version__
from seit.augment import AugmentConfig, PixelAugment, TokenAugment
from seit.config import to_mapping
from seit.documents import as_record, read_json
from seit.errors import DamagedError, UsageError
from seit.models import (
    TUNINGS,
    Compression,
    TuningConfig,
    build_backbone,
    foreign_arguments,
    load_weights,
    make_tuning,
)
from seit.tokenizers import Tokenizer
from seit.training import (
    FINISHED,
    Run,
    TrainConfig,
    TrainResult,
    modules_of,
    pixel_stem,
    read_confusion,
)

CONFIG_NAME = "config.json"
FORMAT = "seit-export"
VERSION = 1
MAX_CONFIG_BYTES = 1 << 26


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """Arguments of :func:`seit.models.build_backbone`.

    Attributes:
        compression: changes of the network by compression; None for none.
        tuning: tuning whose modules the network has; None for none.
    """

    name: str
    channels: int
    input_size: tuple[int, int]
    stem: str
    num_classes: int
    kwargs: dict[str, Any]
    compression: Compression | None = None
    tuning: TuningConfig | None = None

    def build(self, weights: Mapping[str, Tensor], *, origin: str) -> nn.Module:
        """Build the timm model and load its weights, named ``origin`` in messages.

        Raises:
            UsageError: the weights are another model's.
        """
        changes = self.compression or Compression()
        model = build_backbone(
            self.name,
            channels=self.channels,
            input_size=self.input_size,
            stem=self.stem,
            num_classes=self.num_classes,
            weights=weights,
            structure=changes.structure,
            **self.kwargs,
        )
        if self.tuning is not None:
            _check_modules(self.tuning, weights, origin=origin)
            make_tuning(self.tuning).attach(model)
        changes.attach(model, origin=origin)
        load_weights(model, dict(weights), origin=origin)
        return model


@dataclass(frozen=True, kw_only=True)
class TokenizerSpec:
    """Tokenizer of the training data.

    Attributes:
        name: kind of tokenizer.
        fingerprint: its sha256.
        codebook: shape, (K, C) or (L, K, C).
    """

    name: str
    fingerprint: str
    codebook: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ExportSpec:
    """An exported model.

    Attributes:
        model: backbone.
        reads: input of the model: token grids, or the pixels of square images.
        size: rows and columns of a stored grid (L·H, W), or of an image in pixels.
        crop_size: evaluation crop, as in :class:`seit.augment.AugmentConfig`.
        modality: image or audio.
        preprocessing: conversion of files to the tokenizer's input.
        tokenizer: tokenizer.
        classes: class names, in the order of the logits.
        store: seal of the training store.
        settings: all settings of the run.
        result: result of the run.
        environment: versions and hardware of the run.
        format, version: format and version of this file.
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
        """Return the text of `config.json`."""
        body = asdict(self)
        for name in ("compression", "tuning"):
            if getattr(self.model, name) is None:
                del body["model"][name]
        return json.dumps(body, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read and check `config.json` of an exported folder.

        Raises:
            UsageError: there is none, or this version of seit does not support its version.
            DamagedError: the file is not as written.
        """
        path = folder / CONFIG_NAME
        if not path.exists():
            raise UsageError(
                f"no exported model at {folder}: no {CONFIG_NAME} in it; `seit export` writes one"
            )
        body = read_json(path, dict, max_bytes=MAX_CONFIG_BYTES, advice="export again")
        found = (body.get("format"), body.get("version"))
        if found != (FORMAT, VERSION):
            raise UsageError(
                f"{path} is of format {found[0]!r} version {found[1]}; this version of seit reads "
                f"{FORMAT!r} version {VERSION}"
            )
        spec = as_record(body, cls, origin=str(path), advice="export again")
        _check_kwargs(spec.model.kwargs, path)
        return spec


def _check_modules(tuning: TuningConfig, weights: Mapping[str, Tensor], *, origin: str) -> None:
    """Raise a `UsageError` for modules that need more memory than the weights account for."""
    setting = TUNINGS[tuning.method].size_setting
    size = getattr(tuning, setting) if setting else 0
    if size > sum(value.numel() for value in weights.values()):
        raise UsageError(f"the settings of {origin} speak of more weights than it holds")


def describe(run: Run, tokenizer: Tokenizer, compression: Compression) -> ExportSpec:
    """Return everything needed to rebuild the model of a run.

    Args:
        run: a classifier's run.
        tokenizer: its tokenizer.
        compression: how its network differs from that of its settings.

    Raises:
        UsageError: the run has not finished.
    """
    config, info = run.config, run.info
    if info["status"] != FINISHED:
        raise UsageError(
            f"the run {run.path} has not finished; resume it with `seit train … --resume`"
        )
    augment = _augment(config, tokenizer)
    reads_pixels = isinstance(augment, PixelAugment)
    return ExportSpec(
        model=BackboneSpec(
            name=config.model.name,
            channels=augment.channels,
            input_size=augment.output_size,
            stem=_stem(config, augment, tokenizer),
            num_classes=len(run.classes),
            kwargs=config.model.timm_kwargs(),
            compression=compression.of_dense() if compression.changes_network else None,
            tuning=modules_of(run),
        ),
        reads="pixels" if reads_pixels else "tokens",
        size=augment.grid if reads_pixels else tokenizer.grid,
        crop_size=augment.config.crop_size,
        modality=tokenizer.modality,
        preprocessing=tokenizer.preprocessing(),
        tokenizer=TokenizerSpec(
            name=tokenizer.name,
            fingerprint=tokenizer.fingerprint,
            codebook=tuple(tokenizer.codebook.shape),
        ),
        classes=run.classes,
        store=info["identity"]["store"],
        settings=to_mapping(config),
        result=_result(run, info),
        environment=as_record(
            info.get("environment"), dict[str, str], origin=f"the environment in {run.path}"
        ),
        seit=__version__,
    )


def _augment(config: TrainConfig, tokenizer: Tokenizer) -> TokenAugment | PixelAugment:
    """Return the deterministic transform to the network's inputs."""
    if config.data.pixels is None:
        return _token_augment(config, tokenizer)
    height, width, _ = tokenizer.inputs.shape
    return PixelAugment((height, width), AugmentConfig())


def _token_augment(config: TrainConfig, tokenizer: Tokenizer) -> TokenAugment:
    settings = AugmentConfig(crop_size=config.augment.crop_size, synonym_prob=0)
    return TokenAugment(tokenizer.codebook, tokenizer.grid, settings)


def _stem(config: TrainConfig, augment: TokenAugment | PixelAugment, tokenizer: Tokenizer) -> str:
    if not isinstance(augment, PixelAugment):
        return config.model.stem
    patch_size = augment.grid[0] // (tokenizer.grid[0] // tokenizer.levels)
    return pixel_stem(config.model, augment.output_size, patch_size)


def _result(run: Run, info: dict[str, Any]) -> dict[str, Any]:
    """Return the run's figures, with the data that they were measured on."""
    as_record(info["result"], TrainResult, origin=f"the result in {run.path}")
    samples = max(read_confusion(run).total, info["result"].get("val_samples") or 0)
    return {**info["result"], "split": run.config.data.val_split, "samples": samples}


def _check_kwargs(kwargs: Mapping[str, Any], path: Path) -> None:
    """Raise UsageError for arguments that would make timm read other files."""
    for name, value in kwargs.items():
        values = value if isinstance(value, list) else [value]
        is_plain = all(isinstance(one, int | float | str | bool | None) for one in values)
        if foreign_arguments({name: value}) or not is_plain:
            raise DamagedError(f"{path} passes {name}={value!r} to timm, which no export writes")
