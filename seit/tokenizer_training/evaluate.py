"""Evaluation and comparison of tokenizers on a corpus.

Legend: B images, S image side.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from seit.errors import SeitError, UsageError
from seit.files import check_new_file
from seit.ingest import (
    FIT_INPUTS,
    Corpus,
    Instance,
    TokenizeConfig,
    fit_and_measure,
    held_out_remarks,
    list_corpus,
    measure_on_corpus,
    spread_evenly,
)
from seit.tokenizer_training.pictures import Picture, batched, read_pictures
from seit.tokenizer_training.sheet import SheetRow, write_sheet
from seit.tokenizers import (
    MIN_SIDE,
    PRESETS,
    AnyQuality,
    ImageTokenizer,
    Measurement,
    Tokenizer,
    UnitTokenizer,
    measure,
    open_tokenizer,
    with_backbone,
)

SHEET_IMAGES = 8


@dataclass(frozen=True)
class Comparison:
    """Measurements of several tokenizers on the same images.

    Attributes:
        images: maximum number of files read.
        rows: one :class:`Measurement` per requested name, for images.
        warnings: warnings about the corpora, one line each.
    """

    images: int
    rows: Mapping[str, AnyQuality]
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Settings of a comparison.

    Attributes:
        images: number of files, evenly spaced in the val split if the source has one.
        tile: cut images at their own resolution into squares of the tokenizer's size, instead of
            resizing and cropping them.
        fit_on: corpus to fit tokenizers named by kind on; None for the train split of the source,
            evaluating on its val split, or on a tenth if it has none.
        size: image side of fitted tokenizers, in pixels.
        codes: their codebook size; None for 1,024.
        seed: seed of their fit.
        sheet: new PNG file with originals next to reconstructions.
        backbone: folder of the speech model of tokenizers of units.
        download: whether a name on the hub may be downloaded as ``backbone``.
    """

    images: int = 256
    tile: bool = False
    fit_on: str | None = None
    size: int = 256
    codes: int | None = None
    seed: int = 0
    sheet: Path | None = None
    backbone: str | None = None
    download: bool = False

    def __post_init__(self) -> None:
        if self.images < 1:
            raise UsageError(f"images is {self.images}; expected at least 1")
        if not 16 <= self.size <= 4096:
            raise UsageError(f"size is {self.size}; expected 16 to 4096 pixels")
        if self.codes is not None and not 2 <= self.codes <= 65_536:
            raise UsageError(f"codes is {self.codes}; expected 2 to 65,536")
        if self.sheet is not None:
            if self.sheet.suffix.lower() != ".png":
                raise UsageError(f"the sheet {self.sheet} is a PNG; give it a name ending in .png")
            check_new_file(self.sheet)


def compare_tokenizers(
    names: Sequence[str], source: str | Path, config: CompareConfig
) -> Comparison:
    """Measure tokenizers, named as in `seit tokenize --tokenizer`, on a source.

    Raises:
        UsageError: the input is invalid.
        DamagedError: a tokenizer's file is not as written.
        SeitError: nothing is readable, or no image is as large as a tile.
    """
    if len(set(names)) != len(names) or not names:
        raise UsageError("name each tokenizer once, at least one")
    opened = {name: open_tokenizer(name) for name in names if name not in PRESETS}
    opened = {name: _with_backbone(one, config) for name, one in opened.items()}
    kinds = {
        name: PRESETS[name].modality if name in PRESETS else opened[name].modality for name in names
    }
    if set(kinds.values()) == {"audio"}:
        return _compare_audio(names, opened, source, config)
    if "audio" in kinds.values():
        raise UsageError(
            "some of these take images and some audio; compare those that take the same"
        )
    return _compare_images(names, opened, source, config)


def _with_backbone(tokenizer: Tokenizer, config: CompareConfig) -> Tokenizer:
    """Return units with the speech model of the settings, and other tokenizers as they are."""
    needed = config.backbone if isinstance(tokenizer, UnitTokenizer) else None
    return with_backbone(tokenizer, needed, download=config.download)


def _compare_images(
    names: Sequence[str],
    opened: Mapping[str, Tokenizer],
    source: str | Path,
    config: CompareConfig,
) -> Comparison:
    fits_here = config.fit_on is None and len(opened) < len(names)
    corpus = list_corpus(source, val_fraction=0.1 if fits_here else 0.0)
    fit_corpus = list_corpus(config.fit_on) if config.fit_on is not None else corpus
    tokenizers: dict[str, ImageTokenizer] = {}
    for name in names:
        tokenizer = opened[name] if name in opened else _fitted(name, fit_corpus, config)
        assert isinstance(tokenizer, ImageTokenizer)
        if tokenizer.image_size < MIN_SIDE:
            raise UsageError(f"{name} takes images of less than {MIN_SIDE} px, too small for SSIM")
        tokenizers[name] = tokenizer
    instances = spread_evenly(corpus.by_split().get("val") or corpus.instances, config.images)
    rows = {
        name: measure_instances(tokenizer, instances, count=len(instances), tile=config.tile)
        for name, tokenizer in tokenizers.items()
    }
    if config.sheet is not None:
        write_sheet(config.sheet, names, _sheet_rows(tokenizers, instances, config))
    held_out = held_out_remarks(corpus) if fits_here else []
    warnings = tuple(dict.fromkeys((*corpus.warnings, *fit_corpus.warnings, *held_out)))
    return Comparison(len(instances), rows, warnings)


def _compare_audio(
    names: Sequence[str],
    opened: Mapping[str, Tokenizer],
    source: str | Path,
    config: CompareConfig,
) -> Comparison:
    if config.tile or config.sheet is not None:
        raise UsageError("tiles and sheets are of images; leave --tile and --sheet out")
    rows: dict[str, AnyQuality] = {}
    warnings: list[str] = []
    for name in names:
        tokenizer = opened.get(name)
        if tokenizer is None:
            codes = None if PRESETS[name].ready() else config.codes
            settings = TokenizeConfig(tokenizer=name, codes=codes, seed=config.seed)
            tokenizer, _, remarks = fit_and_measure(config.fit_on or source, settings)
            warnings += remarks
        rows[name], remarks = measure_on_corpus(tokenizer, source, images=config.images)
        warnings += remarks
    return Comparison(config.images, rows, tuple(dict.fromkeys(warnings)))


def measure_instances(
    tokenizer: ImageTokenizer, instances: Sequence[Instance], *, count: int, tile: bool = False
) -> Measurement:
    """Measure a tokenizer on ``count`` evenly spaced images.

    Raises:
        SeitError: no image is readable, or none is as large as a tile.
    """
    chosen = spread_evenly(instances, count)
    groups = read_pictures(chosen, size=tokenizer.image_size, tile=tile)
    pictures = chain.from_iterable(groups)
    first = next(pictures, None)
    if first is None:
        raise _unreadable(chosen, tokenizer.image_size, tile=tile)
    with torch.inference_mode():
        return measure(tokenizer, batched(chain([first], pictures)))


def sample_pictures(instances: Sequence[Instance], *, size: int, count: int) -> Tensor:
    """Decode ``count`` evenly spaced images: uint8 (B, S, S, 3).

    Raises:
        SeitError: no image is readable.
    """
    chosen = spread_evenly(instances, count)
    batches = list(batched(chain.from_iterable(read_pictures(chosen, size=size))))
    if not batches:
        raise _unreadable(chosen, size, tile=False)
    return torch.cat(batches)


def _unreadable(instances: Sequence[Instance], size: int, *, tile: bool) -> SeitError:
    what = f"is an image of {size} px or more" if tile else "can be read as an image"
    return SeitError(
        f"none of {len(instances)} files, {instances[0].key} among them, {what}; check SRC"
    )


def _fitted(name: str, corpus: Corpus, config: CompareConfig) -> Tokenizer:
    train = corpus.by_split().get("train") or corpus.instances
    images = sample_pictures(train, size=config.size, count=FIT_INPUTS)
    codes = TokenizeConfig(codes=config.codes).fitted_codes
    return PRESETS[name].fit(images, num_codes=codes, seed=config.seed)


def _sheet_rows(
    tokenizers: Mapping[str, ImageTokenizer], instances: Sequence[Instance], config: CompareConfig
) -> Iterator[SheetRow]:
    """Yield a picture of each of a few images, with each tokenizer's reconstruction."""
    for instance in spread_evenly(instances, SHEET_IMAGES):
        originals: dict[str, Picture] = {}
        for name, tokenizer in tokenizers.items():
            size = tokenizer.image_size
            for pictures in read_pictures([instance], size=size, tile=config.tile):
                originals[name] = pictures[len(pictures) // 2]
        if len(originals) == len(tokenizers):
            rebuilt = {name: _rebuilt(tokenizers[name], one) for name, one in originals.items()}
            yield SheetRow(originals, rebuilt)


def _rebuilt(tokenizer: ImageTokenizer, original: Picture) -> Picture:
    with torch.inference_mode():
        tokens = tokenizer.encode(torch.from_numpy(original)[None])
        return tokenizer.decode(tokens)[0].cpu().numpy()
